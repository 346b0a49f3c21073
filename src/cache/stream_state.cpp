#include "focus/cache/stream_state.h"

#include "focus/core/error.h"

namespace focus::cache {
namespace {

using at::Tensor;

Tensor copy(const Tensor& tensor) { return tensor.defined() ? tensor.clone() : tensor; }
Tensor cut(const Tensor& tensor) { return tensor.defined() ? tensor.detach() : tensor; }

}  // namespace

int64_t storage_bytes(const Tensor& tensor) { return tensor.defined() ? static_cast<int64_t>(tensor.storage().nbytes()) : 0; }

std::unique_ptr<LayerState> HyenaLayerState::clone() const {
  auto out = std::make_unique<HyenaLayerState>();
  out->tensors = {copy(tensors.fir), copy(tensors.inner)};
  return out;
}
int64_t HyenaLayerState::num_bytes() const { return storage_bytes(tensors.fir) + storage_bytes(tensors.inner); }
void HyenaLayerState::detach() { tensors = {cut(tensors.fir), cut(tensors.inner)}; }

std::unique_ptr<LayerState> KeyValueState::clone() const {
  auto out = std::make_unique<KeyValueState>();
  out->k_ = copy(keys());
  out->v_ = copy(values());
  out->size_ = size_;
  return out;
}
int64_t KeyValueState::num_bytes() const { return storage_bytes(k_) + storage_bytes(v_); }
void KeyValueState::detach() {
  k_ = cut(k_);
  v_ = cut(v_);
}

void KeyValueState::append(const Tensor& k, const Tensor& v) {
  const int64_t added = k.size(2);
  if (!k_.defined()) {
    k_ = k;
    v_ = v;
  } else if (at::GradMode::is_enabled() && (k.requires_grad() || k_.requires_grad() || v.requires_grad() || v_.requires_grad())) {
    k_ = at::cat({keys(), k}, 2);
    v_ = at::cat({values(), v}, 2);
  } else {
    if (size_ + added > k_.size(2) || !k_.is_contiguous()) {
      const auto grow = [&](const Tensor& store) {
        Tensor bigger = at::empty({k.size(0), k.size(1), std::max(size_ + added, 2 * size_), k.size(3)}, store.options());
        bigger.narrow(2, 0, size_).copy_(store.narrow(2, 0, size_));
        return bigger;
      };
      k_ = grow(k_);
      v_ = grow(v_);
    }
    k_.narrow(2, size_, added).copy_(k);
    v_.narrow(2, size_, added).copy_(v);
  }
  size_ += added;
}

StreamState StreamState::clone() const {
  StreamState out;
  out.position = position;
  for (const auto& layer : layers) out.layers.push_back(layer ? layer->clone() : nullptr);
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
