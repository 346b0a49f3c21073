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
  auto out = std::make_unique<KeyValueState>();
  out->k_ = copy(keys());
  out->v_ = copy(values());
  out->size_ = size_;
  return out;
}
TensorMap KeyValueState::save() const {
  if (size_ == 0) return {};
  return {{"k", saved_tensor(keys())}, {"v", saved_tensor(values())}};
}
void KeyValueState::load(const TensorMap& saved, const at::Device& device) {
  if (saved.empty()) return;
  k_ = loaded_tensor(saved, "k", device);
  v_ = loaded_tensor(saved, "v", device);
  size_ = k_.size(2);
}
int64_t KeyValueState::num_bytes() const { return storage_bytes(k_) + storage_bytes(v_); }
void KeyValueState::detach() {
  k_ = cut(k_);
  v_ = cut(v_);
}

void KeyValueState::append(const Tensor& k, const Tensor& v) {
  const int64_t added = k.size(2);
  if (at::GradMode::is_enabled() && (k.requires_grad() || v.requires_grad() ||
                                     (k_.defined() && (k_.requires_grad() || v_.requires_grad())))) {
    k_ = k_.defined() ? at::cat({keys(), k}, 2) : k;
    v_ = v_.defined() ? at::cat({values(), v}, 2) : v;
    size_ += added;
    return;
  }
  if (!k_.defined() || size_ + added > k_.size(2) || !k_.is_contiguous()) {
    const int64_t room =
        size_ == 0 ? std::max(added, capacity_) : std::max({size_ + added, size_ + size_ / 2, capacity_});
    const auto grow = [&](const Tensor& store, const Tensor& like) {
      Tensor bigger = at::empty({k.size(0), k.size(1), room, k.size(3)}, like.options());
      if (size_ > 0) bigger.narrow(2, 0, size_).copy_(store.narrow(2, 0, size_));
      return bigger;
    };
    k_ = grow(k_, k);
    v_ = grow(v_, v);
  }
  k_.narrow(2, size_, added).copy_(k);
  v_.narrow(2, size_, added).copy_(v);
  size_ += added;
}

StreamState StreamState::clone() const {
  StreamState out;
  out.position = position;
  out.expected_length = expected_length;
  for (const auto& layer : layers) out.layers.push_back(layer ? layer->clone() : nullptr);
  return out;
}
StreamState StreamState::snapshot() const {
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
