#include "focus/cache/stream_state.h"

#include "focus/core/error.h"

namespace focus::cache {
namespace {

using at::Tensor;

Tensor copy(const Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; }
Tensor cut(const Tensor& tensor) { return tensor.defined() ? tensor.detach() : tensor; }

}  // namespace

Tensor saved_tensor(const Tensor& tensor) {
  return tensor.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous);
}

Tensor loaded_tensor(const TensorMap& tensors, const std::string& name, const at::Device& device) {
  const auto found = tensors.find(name);
  if (found == tensors.end())
    fail<CheckpointError>("a saved stream state lacks '", name,
                          "'; it belongs to another kind of layer or memory");
  return found->second.to(device).clone();
}

int64_t storage_bytes(const Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.storage().nbytes()) : 0;
}

std::unique_ptr<LayerState> HyenaLayerState::clone() const {
  auto out = std::make_unique<HyenaLayerState>();
  out->tensors = {copy(tensors.fir), copy(tensors.inner)};
  return out;
}
TensorMap HyenaLayerState::save() const {
  if (!tensors.fir.defined()) return {};
  return {{"fir", saved_tensor(tensors.fir)}, {"inner", saved_tensor(tensors.inner)}};
}
void HyenaLayerState::load(const TensorMap& saved, const at::Device& device) {
  if (saved.empty()) return;
  tensors = {loaded_tensor(saved, "fir", device), loaded_tensor(saved, "inner", device)};
}
int64_t HyenaLayerState::num_bytes() const {
  return storage_bytes(tensors.fir) + storage_bytes(tensors.inner);
}
void HyenaLayerState::detach() { tensors = {cut(tensors.fir), cut(tensors.inner)}; }

std::unique_ptr<LayerState> KeyValueState::clone() const {
  auto out = std::make_unique<KeyValueState>(*this);
  out->k_ = k_.clone();
  out->v_ = v_.clone();
  return out;
}
TensorMap KeyValueState::save() const {
  if (k_.empty()) return {};
  return {{"k", saved_tensor(keys())}, {"v", saved_tensor(values())}};
}
void KeyValueState::load(const TensorMap& saved, const at::Device& device) {
  if (saved.empty()) return;
  k_.assign(loaded_tensor(saved, "k", device));
  v_.assign(loaded_tensor(saved, "v", device));
}
int64_t KeyValueState::num_bytes() const { return k_.storage_bytes() + v_.storage_bytes(); }
void KeyValueState::detach() {
  k_.detach();
  v_.detach();
}

void KeyValueState::append(const Tensor& k, const Tensor& v) {
  const auto tracks = [](const Tensor& t) { return t.defined() && t.requires_grad(); };
  const bool recorded =
      at::GradMode::is_enabled() && (tracks(k) || tracks(v) || tracks(keys()) || tracks(values()));
  if (stretch != nullptr && !recorded) {
    k_.append(k, *stretch);
    v_.append(v, *stretch);
    return;
  }
  k_.append(k, recorded);
  v_.append(v, recorded);
}

void StreamState::step(int64_t steady, const at::Device& device) {
  if (stretch == nullptr) {
    stretch = std::make_shared<Stretch>();
    stretch->index = at::zeros({1}, at::TensorOptions().dtype(at::kLong).device(device));
  } else if (repeats(steady) == 0) {
    stretch->index.zero_();
    stretch->read = 0;
  }
  stretch->over = steady == 0;
}

int64_t StreamState::repeats(int64_t steady) const {
  if (stretch == nullptr || stretch->over || stretch->read == 0) return 0;
  for (const auto& layer : layers) steady = std::min(steady, layer->room());
  return steady;
}

void StreamState::advance() {
  ++position;
  ++stretch->read;
  for (const auto& layer : layers) layer->advance();
}

StreamState StreamState::clone() const {
  StreamState out;
  out.position = position;
  out.expected_length = expected_length;
  for (const auto& layer : layers) out.layers.push_back(layer ? layer->clone() : nullptr);
  return out;
}
StreamState StreamState::snapshot() const {
  if (stretch != nullptr) stretch->over = true;
  StreamState out;
  out.position = position;
  out.expected_length = expected_length;
  for (const auto& layer : layers) out.layers.push_back(layer ? layer->snapshot() : nullptr);
  return out;
}
int64_t StreamState::num_bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers) total += layer ? layer->num_bytes() : 0;
  return total;
}
void StreamState::detach() {
  for (const auto& layer : layers) {
    if (layer) layer->detach();
  }
}

}  // namespace focus::cache
