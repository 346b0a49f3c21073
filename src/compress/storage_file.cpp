// Saved streams: the tensors of a store under their names, and its format.
#include "focus/compress/storage.h"
#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

const std::string kPrefix = "retained.";

std::vector<int64_t> numbers(const Tensor& t) {
  const Tensor flat = t.to(at::kCPU, at::kLong).contiguous().flatten();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

/// The device is left out: a stream saved on one machine may go on where entries are held elsewhere.
std::vector<int64_t> fingerprint(const StorageFormat& f) { return {static_cast<int64_t>(f.dtype), f.bits, f.key_group}; }

}  // namespace

void EntryStore::save(cache::TensorMap& out) const {
  if (empty()) return;
  for_each(*this, [&](const char* name, const Tensor& t) {
    if (t.defined()) out.emplace(kPrefix + name, cache::saved_tensor(t));
  });
  std::vector<int64_t> origin;
  for (const EntryOrigin& entry : origin_) origin.insert(origin.end(), {entry.window, entry.index});
  out.emplace("retained.origin", at::tensor(origin, at::kLong).view({-1, 2}));
  if (!group_.empty()) out.emplace("retained.group", at::tensor(group_, at::kLong));
  // Not for entries in the model's own type, whose files older versions wrote too.
  if (fingerprint(format_) != fingerprint({})) out.emplace("retained.format", at::tensor(fingerprint(format_), at::kLong));
}

void EntryStore::load(const cache::TensorMap& saved, const at::Device& device) {
  clear();
  if (!saved.contains("retained.origin")) return;
  const std::vector<int64_t> format = saved.contains("retained.format") ? numbers(saved.at("retained.format")) : fingerprint({});
  if (format != fingerprint(format_)) {
    fail<CheckpointError>(
        "a saved stream holds its retained entries in another precision than this memory is configured for: set storage.dtype (",
        "or the retention policy) to what the stream was made with");
  }
  const at::Device place = format_.device == StorageDevice::host ? at::Device(at::kCPU) : device;
  for_each(*this, [&](const char* name, Tensor& t) {
    if (saved.contains(kPrefix + name)) t = cache::loaded_tensor(saved, kPrefix + name, place);
  });
  const std::vector<int64_t> origin = numbers(saved.at("retained.origin"));
  for (std::size_t i = 0; i + 1 < origin.size(); i += 2) origin_.push_back({origin[i], origin[i + 1]});
  if (saved.contains("retained.group")) group_ = numbers(saved.at("retained.group"));
  const Tensor &keys = format_.bits > 0 ? codes_k_.codes : k_, &values = format_.bits > 0 ? codes_v_.codes : v_;
  const bool whole = keys.defined() && values.defined() && keys.dim() == 4 && keys.size(2) == size() && values.size(2) == size() &&
                     (format_.key_group == 0 || group_.size() == origin_.size());
  if (!whole) fail<CheckpointError>("a saved stream state does not belong to a compressed memory: its retained entries are incomplete");
}

}  // namespace focus::compress
