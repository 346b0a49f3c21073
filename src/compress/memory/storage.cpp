#include "focus/compress/memory/storage.h"

#include <algorithm>
#include <numeric>

#include "focus/core/error.h"
#include "quantised.h"

namespace focus::compress {
namespace {

using at::Tensor;

bool tracked(const Tensor& t) { return t.defined() && t.requires_grad() && at::GradMode::is_enabled(); }

Tensor joined(const Tensor& before, const Tensor& now) {
  return before.defined() ? at::cat({before, now}, 2) : now;
}

Tensor zero_beta(const Tensor& k_BGSE) {
  return at::zeros({k_BGSE.size(0), k_BGSE.size(1), k_BGSE.size(2)}, k_BGSE.options().dtype(at::kFloat));
}

/// Rows of `t`, or of nothing, into storage of their own.
void take(Tensor& t, const Tensor& index) {
  if (t.defined()) t = index.numel() == 0 ? Tensor() : t.index_select(2, index.to(t.device()));
}

const std::string kPrefix = "retained.";

std::vector<int64_t> numbers(const Tensor& t) {
  const Tensor flat = t.to(at::kCPU, at::kLong).contiguous().flatten();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

/// The device is left out: a stream saved on one machine may go on where entries are held elsewhere.
std::vector<int64_t> fingerprint(const StorageFormat& f) {
  return {static_cast<int64_t>(f.dtype), f.bits, f.key_group};
}

}  // namespace

void StorageConfig::visit(config::Fields& f) {
  f.choice("dtype", dtype,
           {{"model", StorageType::model},
            {"fp32", StorageType::fp32},
            {"bf16", StorageType::bf16},
            {"int8", StorageType::int8}},
           "precision of retained keys and values: the model's, or another one; int8 has scales per entry "
           "and head, and no gradient");
  f.choice("device", device, {{"model", StorageDevice::model}, {"host", StorageDevice::host}},
           "where retained keys and values are held: beside the model, or in host memory, from where each "
           "call copies them");
}

int64_t StorageFormat::entry_bytes(int64_t kv_heads, int64_t head_dim, at::ScalarType model_dtype,
                                   bool with_beta) const {
  constexpr int64_t kScales = 4;  // low and step
  const int64_t beta = with_beta ? static_cast<int64_t>(sizeof(float)) : 0;
  if (bits > 0) return kv_heads * (2 * head_dim * bits / 8 + (key_group == 0 ? 2 : 1) * kScales + beta);
  const at::ScalarType held = dtype == StorageType::fp32   ? at::kFloat
                              : dtype == StorageType::bf16 ? at::kBFloat16
                                                           : model_dtype;
  return bytes_per_entry(1, kv_heads, head_dim, held, with_beta);
}

void EntryStore::append(const Entries& more) {
  if (more.empty()) return;
  Entries e = more;
  if (format_.device == StorageDevice::host) {
    for (Tensor* t : {&e.k, &e.v, &e.beta}) *t = t->defined() ? t->to(at::kCPU) : *t;
  }
  if (e.beta.defined() && !beta_.defined() && !empty()) {
    const Tensor& like = format_.bits > 0 ? codes_k_.codes : k_;
    beta_ = zero_beta(like);
  }
  if (!e.beta.defined() && beta_.defined()) e.beta = zero_beta(e.k);
  const bool gradient = tracked(e.k) || tracked(e.v) || tracked(e.beta);
  if (format_.bits > 0) {
    if (gradient)
      fail<ConfigError>(
          "storage.dtype int8 has no gradient: train with storage.dtype model, bf16 or fp32, and set int8 "
          "when the adapter is used");
    const QuantisedTensor k = quantise(e.k, format_.bits, format_.key_group),
                          v = quantise(e.v, format_.bits, 0);
    if (format_.key_group > 0) {
      // Groups are counted within one append, so that they never cross a window's end.
      const int64_t first = num_groups();
      for (int64_t i = 0; i < e.size(); ++i) group_.push_back(first + i / format_.key_group);
    }
    const auto add = [](QuantisedTensor& all, const QuantisedTensor& now) {
      all.codes = joined(all.codes, now.codes);
      all.low = joined(all.low, now.low);
      all.step = joined(all.step, now.step);
    };
    add(codes_k_, k);
    add(codes_v_, v);
  } else {
    if (format_.dtype != StorageType::model) {
      const auto held = format_.dtype == StorageType::fp32 ? at::kFloat : at::kBFloat16;
      e.k = e.k.to(held);
      e.v = e.v.to(held);
    }
    // Into storage of its own where no gradient is recorded: a view would keep the raw window alive.
    const auto own = [&](const Tensor& t) {
      return gradient || !t.defined() ? t : t.clone(at::MemoryFormat::Contiguous);
    };
    k_ = k_.defined() ? joined(k_, e.k) : own(e.k);
    v_ = v_.defined() ? joined(v_, e.v) : own(e.v);
  }
  if (e.beta.defined())
    beta_ = beta_.defined() ? joined(beta_, e.beta)
            : gradient      ? e.beta
                            : e.beta.clone(at::MemoryFormat::Contiguous);
  origin_.insert(origin_.end(), e.origin.begin(), e.origin.end());
}

void EntryStore::keep(int64_t begin, int64_t end) {
  FOCUS_CHECK(begin >= 0 && begin <= end && end <= size(), "keep ", begin, "..", end, " of ", size());
  if (begin == 0 && end == size()) return;
  std::vector<int64_t> indices(static_cast<std::size_t>(end - begin));
  std::iota(indices.begin(), indices.end(), begin);
  select(indices);
}

void EntryStore::select(const std::vector<int64_t>& indices) {
  const Tensor index = at::tensor(indices, at::kLong);
  std::vector<EntryOrigin> origin;
  for (const int64_t i : indices) origin.push_back(origin_.at(static_cast<std::size_t>(i)));
  origin_ = std::move(origin);
  for (Tensor* t : {&k_, &v_, &beta_, &codes_k_.codes, &codes_v_.codes, &codes_v_.low, &codes_v_.step})
    take(*t, index);
  if (group_.empty()) {
    take(codes_k_.low, index);
    take(codes_k_.step, index);
    return;
  }
  // Scales stay as long as one entry of their group does; the entries keep their order, and so do the groups.
  std::vector<int64_t> rows, group;
  for (const int64_t i : indices) {
    const int64_t row = group_[static_cast<std::size_t>(i)];
    if (rows.empty() || rows.back() != row) rows.push_back(row);
    group.push_back(static_cast<int64_t>(rows.size()) - 1);
  }
  group_ = std::move(group);
  take(codes_k_.low, at::tensor(rows, at::kLong));
  take(codes_k_.step, at::tensor(rows, at::kLong));
}

Entries EntryStore::read(const Tensor& like) const {
  Entries out;
  if (empty()) return out;
  const auto place = [&](const Tensor& t) { return t.to(like.device(), like.scalar_type()); };
  if (format_.bits > 0) {
    out.k = place(dequantise(codes_k_, format_.bits, group_, like.scalar_type()));
    out.v = place(dequantise(codes_v_, format_.bits, {}, like.scalar_type()));
  } else {
    out.k = place(k_);
    out.v = place(v_);
  }
  if (beta_.defined()) out.beta = beta_.to(like.device());
  out.origin = origin_;
  return out;
}

int64_t EntryStore::num_bytes() const {
  int64_t total = 0;
  for_each(*this, [&](const char*, const Tensor& t) { total += cache::storage_bytes(t); });
  return total;
}

int64_t EntryStore::bytes_from(int64_t begin) const {
  const int64_t left = size() - begin;
  if (left == 0) return 0;
  int64_t total = 0;
  for_each(*this, [&](const char*, const Tensor& t) {
    if (!t.defined()) return;
    const bool shared = !group_.empty() && (&t == &codes_k_.low || &t == &codes_k_.step);
    const int64_t rows = shared ? num_groups() - group_[static_cast<std::size_t>(begin)] : left;
    total += static_cast<int64_t>(t.nbytes()) / t.size(2) * rows;
  });
  return total;
}

EntryStore EntryStore::clone() const {
  EntryStore out = *this;
  for_each(out, [](const char*, Tensor& t) { t = t.defined() ? t.clone(at::MemoryFormat::Contiguous) : t; });
  return out;
}

void EntryStore::detach() {
  for_each(*this, [](const char*, Tensor& t) { t = t.defined() ? t.detach() : t; });
}

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
  if (fingerprint(format_) != fingerprint({}))
    out.emplace("retained.format", at::tensor(fingerprint(format_), at::kLong));
}

void EntryStore::load(const cache::TensorMap& saved, const at::Device& device) {
  clear();
  if (!saved.contains("retained.origin")) return;
  const std::vector<int64_t> format =
      saved.contains("retained.format") ? numbers(saved.at("retained.format")) : fingerprint({});
  if (format != fingerprint(format_)) {
    fail<CheckpointError>(
        "a saved stream holds its retained entries in another precision than this memory is configured for: "
        "set storage.dtype (",
        "or the retention policy) to what the stream was made with");
  }
  const at::Device place = format_.device == StorageDevice::host ? at::Device(at::kCPU) : device;
  for_each(*this, [&](const char* name, Tensor& t) {
    if (saved.contains(kPrefix + name)) t = cache::loaded_tensor(saved, kPrefix + name, place);
  });
  const std::vector<int64_t> origin = numbers(saved.at("retained.origin"));
  for (std::size_t i = 0; i + 1 < origin.size(); i += 2) origin_.push_back({origin[i], origin[i + 1]});
  if (saved.contains("retained.group")) group_ = numbers(saved.at("retained.group"));
  const Tensor &keys = format_.bits > 0 ? codes_k_.codes : k_,
               &values = format_.bits > 0 ? codes_v_.codes : v_;
  const bool whole = keys.defined() && values.defined() && keys.dim() == 4 && keys.size(2) == size() &&
                     values.size(2) == size() && (format_.key_group == 0 || group_.size() == origin_.size());
  if (!whole)
    fail<CheckpointError>(
        "a saved stream state does not belong to a compressed memory: its retained entries are incomplete");
}

Entries rounded(const Entries& entries, const StorageFormat& format) {
  if (entries.empty() || (format.dtype == StorageType::model && format.bits == 0)) return entries;
  EntryStore store(format);
  store.append(entries);
  return store.read(entries.k);
}

}  // namespace focus::compress
