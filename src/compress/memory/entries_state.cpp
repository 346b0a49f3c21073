#include "entries_state.h"

#include "focus/core/error.h"

namespace focus::compress {

using at::Tensor;

std::unique_ptr<cache::LayerState> EntriesState::clone() const {
  auto out = std::make_unique<EntriesState>(*this);
  out->retained = retained.clone();
  out->recent = recent.clone();
  out->open = open.clone();
  for (Tensor& x : out->focus_x) x = x.clone();
  return out;
}

MemoryUse EntriesState::use() const {
  MemoryUse use{retained.size() + recent.size(), retained.num_bytes() + recent.num_bytes(), open.num_bytes()};
  for (const Tensor& x : focus_x) use.open_bytes += cache::storage_bytes(x);
  return use;
}

void EntriesState::detach() {
  retained.detach();
  recent.detach();
  open.detach();
  for (Tensor& x : focus_x) x = x.detach();
}

cache::TensorMap EntriesState::save() const {
  cache::TensorMap out;
  retained.save(out);
  recent.save(out);
  open.save(out);
  if (hidden > 0) out.emplace("hidden", at::full({1}, hidden, at::kLong));
  if (!focus_x.empty()) out.emplace("focus_x", cache::saved_tensor(at::cat(focus_x, 1)));
  return out;
}

void EntriesState::load(const cache::TensorMap& saved, const at::Device& device) {
  retained.load(saved, device);
  recent.load(saved, device);
  open.load(saved, device);
  hidden = saved.contains("hidden") ? cache::loaded_tensor(saved, "hidden", at::kCPU).item<int64_t>() : 0;
  if (hidden > retained.size())
    fail<CheckpointError>("a saved stream state does not belong to a compressed memory");
  if (saved.contains("focus_x")) {
    for (const Tensor& x : cache::loaded_tensor(saved, "focus_x", device).split(1, 1))
      focus_x.push_back(x.clone());
  }
}

}  // namespace focus::compress
