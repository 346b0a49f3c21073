#include "focus/compress/memory/storage.h"

#include <algorithm>

#include "focus/compress/plan/plan.h"
#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "focus/ops/quantised.h"

namespace focus::compress {
namespace {

using at::Tensor;

bool tracked(const Tensor& t) { return t.defined() && t.requires_grad() && at::GradMode::is_enabled(); }

Tensor zero_beta(const Tensor& k_BGSE, const Tensor& like) {
  return at::zeros({k_BGSE.size(0), k_BGSE.size(1), k_BGSE.size(2)}, like.options().requires_grad(false));
}

constexpr std::size_t kFewRuns = 4;  // of selected entries: cut out one by one, without a list of the host

std::vector<int64_t> numbers(const Tensor& t) {
  const Tensor flat = t.to(at::kCPU, at::kLong).contiguous().flatten();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

/// The device is left out: a stream saved on one machine may go on where entries are held elsewhere.
std::vector<int64_t> fingerprint(const StorageFormat& f) {
  return {static_cast<int64_t>(f.dtype), f.bits, f.key_group};
}

}  // namespace

void StorageConfig::visit(config::Fields& f, const config::Condition& entries) {
  f.only(entries).choice(
      "dtype", dtype,
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
  const int64_t beta = with_beta ? static_cast<int64_t>(sizeof(float)) : 0;
  if (bits > 0) return kv_heads * (2 * head_dim * bits / 8 + (key_group == 0 ? 2 : 1) * kScaleBytes + beta);
  const at::ScalarType held = dtype == StorageType::fp32   ? at::kFloat
                              : dtype == StorageType::bf16 ? at::kBFloat16
                                                           : model_dtype;
  return bytes_per_entry(1, kv_heads, head_dim, held, with_beta);
}

void EntryStore::append(const Entries& more) {
  if (more.empty()) return;
  Entries e = more;
  const bool gradient = tracked(e.k) || tracked(e.v) || tracked(e.beta),
             recorded = at::GradMode::is_enabled(),
             on_host = format_.device == StorageDevice::host && !recorded;
  if (format_.device == StorageDevice::host && recorded) {
    for (Tensor* t : {&e.k, &e.v, &e.beta}) *t = t->defined() ? t->to(at::kCPU) : *t;
  }
  from_ = more.k.device();
  const auto add = [&](Rows& held, const Tensor& rows) { held.append(rows, recorded, on_host); };
  if (e.beta.defined() && beta_.empty() && !empty()) add(beta_, zero_beta(keys().rows(), e.beta));
  if (!e.beta.defined() && !beta_.empty()) e.beta = zero_beta(e.k, beta_.rows()).to(e.k.device());
  if (format_.bits > 0) {
    if (gradient)
      fail<ConfigError>(
          "storage.dtype int8 has no gradient: train with storage.dtype model, bf16 or fp32, and set int8 "
          "when the adapter is used");
    const int64_t first = num_groups();
    if (format_.key_group > 0) {
      // Groups are counted within one append, so that they never cross a window's end.
      for (int64_t i = 0; i < e.size(); ++i) group_.push_back(first + i / format_.key_group);
    }
    const auto add_codes = [&](Codes& held, const ops::QuantisedTensor& now) {
      add(held.codes, now.codes);
      add(held.low, now.low);
      add(held.step, now.step);
    };
    const ops::QuantisedTensor k = ops::quantise(e.k, format_.bits, format_.key_group);
    add_codes(codes_k_, k);
    add_codes(codes_v_, ops::quantise(e.v, format_.bits, 0));
    if (k.row_of.defined()) add(row_of_, k.row_of + first);
  } else {
    if (format_.dtype != StorageType::model) {
      const auto held = format_.dtype == StorageType::fp32 ? at::kFloat : at::kBFloat16;
      e.k = e.k.to(held);
      e.v = e.v.to(held);
    }
    add(k_, e.k);
    add(v_, e.v);
  }
  add(beta_, e.beta);
  origin_.insert(origin_.end(), e.origin.begin(), e.origin.end());
}

void EntryStore::keep(int64_t begin, int64_t end) {
  FOCUS_CHECK(begin >= 0 && begin <= end && end <= size(), "keep ", begin, "..", end, " of ", size());
  if (begin == 0 && end == size()) return;
  if (begin == end) return clear();
  for_each(*this, [&](const char*, Rows& rows) {
    if (rows.empty()) return;
    shares_scales(rows)
        ? rows.keep(group_[static_cast<std::size_t>(begin)], group_[static_cast<std::size_t>(end - 1)] + 1)
        : rows.keep(begin, end);
  });
  origin_ = {origin_.begin() + begin, origin_.begin() + end};
  if (group_.empty()) return;
  group_ = {group_.begin() + begin, group_.begin() + end};
  const int64_t first = group_.front();
  for (int64_t& row : group_) row -= first;
  row_of_.keep(begin, end);
  if (first > 0) row_of_.assign(row_of_.rows() - first);
}

void EntryStore::select(const std::vector<int64_t>& indices) {
  if (indices.empty()) return clear();
  std::vector<Span> runs;
  for (const int64_t i : indices) {
    if (!runs.empty() && runs.back().end == i)
      ++runs.back().end;
    else
      runs.push_back({i, i + 1});
  }
  if (runs.size() == 1) return keep(runs[0].begin, runs[0].end);
  std::vector<EntryOrigin> origin;
  for (const int64_t i : indices) origin.push_back(origin_.at(static_cast<std::size_t>(i)));
  origin_ = std::move(origin);
  // Scales stay as long as one entry of their group does; the entries keep their order, and so do the groups.
  std::vector<int64_t> scales, group;
  if (!group_.empty()) {
    for (const int64_t i : indices) {
      const int64_t row = group_[static_cast<std::size_t>(i)];
      if (scales.empty() || scales.back() != row) scales.push_back(row);
      group.push_back(static_cast<int64_t>(scales.size()) - 1);
    }
  }
  if (format_.device == StorageDevice::host) ops::wait_for(from_);
  const auto take = [&](Rows& rows, const std::vector<int64_t>& of) {
    const Tensor all = rows.rows();
    if (&of != &indices || runs.size() > kFewRuns) {
      rows.assign(all.index_select(2, ops::from_host(of, all.device())));
      return;
    }
    std::vector<Tensor> parts;
    for (const Span& run : runs) parts.push_back(all.narrow(2, run.begin, run.size()));
    rows.assign(at::cat(parts, 2));
  };
  for_each(*this, [&](const char*, Rows& rows) {
    if (!rows.empty()) take(rows, shares_scales(rows) ? scales : indices);
  });
  group_ = std::move(group);
  if (!group_.empty()) row_of_.assign(ops::from_host(group_, row_of_.rows().device()).to(at::kInt));
}

ops::MemoryPart EntryStore::memory(const Tensor& like) const {
  ops::MemoryPart out;
  if (empty()) return out;
  const auto place = [&](const Tensor& t, at::ScalarType type) {
    return t.to(like.device(), type, /*non_blocking=*/format_.device == StorageDevice::host);
  };
  const auto type = like.scalar_type();
  if (format_.bits > 0) {
    const auto here = [&](const Tensor& t) { return t.defined() ? place(t, t.scalar_type()) : t; };
    const auto codes = [&](const Codes& held, const Tensor& row_of) -> ops::QuantisedTensor {
      return {here(held.codes.rows()), here(held.low.rows()), here(held.step.rows()), here(row_of),
              format_.bits};
    };
    out.k_codes = codes(codes_k_, row_of_.rows());
    out.v_codes = codes(codes_v_, {});
  } else {
    out.k = place(k_.rows(), k_.rows().scalar_type()).to(type);
    out.v = place(v_.rows(), v_.rows().scalar_type()).to(type);
  }
  if (!beta_.empty()) out.beta = place(beta_.rows(), beta_.rows().scalar_type());
  return out;
}

Entries EntryStore::read(const Tensor& like) const {
  const ops::MemoryPart held = memory(like).decoded(like.scalar_type());
  return {held.k, held.v, held.beta, {}};
}

int64_t EntryStore::num_bytes() const {
  int64_t total = 0;
  for_each(*this, [&](const char*, const Rows& rows) { total += rows.num_bytes(); });
  return total;
}

int64_t EntryStore::bytes_from(int64_t begin) const {
  const int64_t left = size() - begin;
  if (left == 0) return 0;
  int64_t total = 0;
  for_each(*this, [&](const char*, const Rows& rows) {
    if (rows.empty()) return;
    const int64_t kept = shares_scales(rows) ? num_groups() - group_[static_cast<std::size_t>(begin)] : left;
    total += rows.num_bytes() / rows.size() * kept;
  });
  return total;
}

EntryStore EntryStore::clone() const {
  EntryStore out = *this;
  if (format_.device == StorageDevice::host) ops::wait_for(from_);
  for_each(out, [](const char*, Rows& rows) { rows = rows.clone(); });
  out.row_of_ = row_of_.clone();
  return out;
}

void EntryStore::detach() {
  for_each(*this, [](const char*, Rows& rows) { rows.detach(); });
}

void EntryStore::save(cache::TensorMap& out) const {
  if (empty()) return;
  if (format_.device == StorageDevice::host) ops::wait_for(from_);
  for_each(*this, [&](const char* name, const Rows& rows) {
    if (!rows.empty()) out.emplace(name_ + "." + name, cache::saved_tensor(rows.rows()));
  });
  std::vector<int64_t> origin;
  for (const EntryOrigin& entry : origin_) origin.insert(origin.end(), {entry.window, entry.index});
  out.emplace(name_ + ".origin", at::tensor(origin, at::kLong).view({-1, 2}));
  if (!group_.empty()) out.emplace(name_ + ".group", at::tensor(group_, at::kLong));
  // Not for entries in the model's own type, whose files older versions wrote too.
  if (fingerprint(format_) != fingerprint({}))
    out.emplace(name_ + ".format", at::tensor(fingerprint(format_), at::kLong));
}

void EntryStore::load(const cache::TensorMap& saved, const at::Device& device) {
  clear();
  if (!saved.contains(name_ + ".origin")) return;
  const std::vector<int64_t> format =
      saved.contains(name_ + ".format") ? numbers(saved.at(name_ + ".format")) : fingerprint({});
  if (format != fingerprint(format_)) {
    fail<CheckpointError>(
        "a saved stream holds its retained entries in another precision than this memory is configured for: "
        "set storage.dtype (",
        "or the retention policy) to what the stream was made with");
  }
  const at::Device place = format_.device == StorageDevice::host ? at::Device(at::kCPU) : device;
  from_ = device;
  const auto loaded = [&](const char* name) {
    const Tensor t = cache::loaded_tensor(saved, name_ + "." + name, place);
    return place == device || !device.is_cuda() ? t : t.pin_memory();
  };
  for_each(*this, [&](const char* name, Rows& rows) {
    if (saved.contains(name_ + "." + name)) rows.assign(loaded(name));
  });
  const std::vector<int64_t> origin = numbers(saved.at(name_ + ".origin"));
  for (std::size_t i = 0; i + 1 < origin.size(); i += 2) origin_.push_back({origin[i], origin[i + 1]});
  if (saved.contains(name_ + ".group")) group_ = numbers(saved.at(name_ + ".group"));
  const Tensor held_k = keys().rows(), held_v = (format_.bits > 0 ? codes_v_.codes : v_).rows();
  const bool whole = held_k.defined() && held_v.defined() && held_k.dim() == 4 && held_k.size(2) == size() &&
                     held_v.size(2) == size() && (format_.key_group == 0 || group_.size() == origin_.size());
  if (!whole)
    fail<CheckpointError>(
        "a saved stream state does not belong to a compressed memory: its retained entries are incomplete");
  if (!group_.empty()) row_of_.assign(ops::from_host(group_, place).to(at::kInt));
}

Entries rounded(const Entries& entries, const StorageFormat& format) {
  if (entries.empty() || (format.dtype == StorageType::model && format.bits == 0)) return entries;
  EntryStore store(format);
  store.append(entries);
  Entries out = store.read(entries.k);
  out.origin = entries.origin;
  return out;
}

}  // namespace focus::compress
