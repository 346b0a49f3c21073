#include "focus/compress/memory/entries.h"

#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

bool tracked(const Tensor& t) { return t.defined() && t.requires_grad() && at::GradMode::is_enabled(); }

Tensor beta_or_zeros(const Entries& e) {
  return e.beta.defined()
             ? e.beta
             : at::zeros({e.k.size(0), e.k.size(1), e.k.size(2)}, e.k.options().dtype(at::kFloat));
}

}  // namespace

void Entries::append(const Entries& more) {
  if (more.empty()) return;
  if (empty()) {
    // Without a gradient into storage of its own: a view would keep the raw window alive.
    *this = tracked(more.k) || tracked(more.v) || tracked(more.beta) ? more : more.clone();
    return;
  }
  if (beta.defined() || more.beta.defined()) beta = at::cat({beta_or_zeros(*this), beta_or_zeros(more)}, 2);
  k = at::cat({k, more.k}, 2);
  v = at::cat({v, more.v}, 2);
  origin.insert(origin.end(), more.origin.begin(), more.origin.end());
}

Entries Entries::slice(int64_t begin, int64_t end) const {
  FOCUS_CHECK(begin >= 0 && begin <= end && end <= size(), "slice ", begin, "..", end, " of ", size());
  if (begin == end) return {};
  Entries out;
  out.k = k.narrow(2, begin, end - begin);
  out.v = v.narrow(2, begin, end - begin);
  if (beta.defined()) out.beta = beta.narrow(2, begin, end - begin);
  if (!origin.empty()) out.origin.assign(origin.begin() + begin, origin.begin() + end);
  return out;
}

void Entries::keep(int64_t begin, int64_t end) {
  if (begin == 0 && end == size()) return;
  Entries kept = slice(begin, end);
  *this = tracked(kept.k) || tracked(kept.v) || tracked(kept.beta) ? std::move(kept) : kept.clone();
}

int64_t Entries::num_bytes() const {
  int64_t total = 0;
  for (const Tensor* t : {&k, &v, &beta})
    total += t->defined() ? static_cast<int64_t>(t->storage().nbytes()) : 0;
  return total;
}

Entries Entries::clone() const {
  Entries out;
  out.k = k.defined() ? k.clone(at::MemoryFormat::Contiguous) : k;
  out.v = v.defined() ? v.clone(at::MemoryFormat::Contiguous) : v;
  out.beta = beta.defined() ? beta.clone(at::MemoryFormat::Contiguous) : beta;
  out.origin = origin;
  return out;
}

void Entries::detach() {
  for (Tensor* t : {&k, &v, &beta}) {
    if (t->defined()) *t = t->detach();
  }
}

Entries raw_entries(const Tensor& k, const Tensor& v, int64_t begin, int64_t end, int64_t window,
                    int64_t first_base) {
  Entries out;
  if (begin >= end) return out;
  out.k = k.narrow(2, begin, end - begin);
  out.v = v.narrow(2, begin, end - begin);
  for (int64_t i = begin; i < end; ++i) out.origin.push_back({window, first_base + i});
  return out;
}

void add_zero_beta(Entries& entries) {
  if (entries.empty() || entries.beta.defined()) return;
  const auto type = entries.k.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  entries.beta =
      at::zeros({entries.k.size(0), entries.k.size(1), entries.k.size(2)}, entries.k.options().dtype(type));
}

int64_t bytes_per_entry(int64_t batch, int64_t kv_heads, int64_t head_dim, at::ScalarType dtype,
                        bool with_beta) {
  return batch * kv_heads *
         (2 * head_dim * static_cast<int64_t>(at::elementSize(dtype)) +
          (with_beta ? static_cast<int64_t>(sizeof(float)) : 0));
}

}  // namespace focus::compress
