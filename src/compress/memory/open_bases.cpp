#include "open_bases.h"

#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

// Into storage of its own: a view would keep the whole call's projections alive for as long as the window is
// open.
Tensor join(const Tensor& before, const Tensor& now, int64_t dim) {
  if (before.defined()) return at::cat({before, now}, dim);
  return at::GradMode::is_enabled() ? now : now.clone(at::MemoryFormat::Contiguous);
}

/// Calls f(name, tensor) for each tensor; `Open` may be const.
template <class Open, class F>
void for_each(Open& open, const F& f) {
  f("k", open.k);
  f("v", open.v);
  f("q", open.q);
  f("u", open.u);
  f("positions", open.positions);
}

}  // namespace

void OpenBases::append(const Tensor& k_new, const Tensor& v_new, const Tensor& q_new, const Tensor& u_new,
                       const Tensor& positions_new) {
  k = join(k, k_new, 2);
  v = join(v, v_new, 2);
  if (q_new.defined()) q = join(q, q_new, 2);
  if (u_new.defined()) u = join(u, u_new, 1);
  positions = join(positions, positions_new, 0);
}

void OpenBases::keep(int64_t raw, int64_t unread) {
  if (raw == 0) return clear();
  const auto last = [](Tensor& t, int64_t count, int64_t dim) {
    if (!t.defined() || t.size(dim) <= count) return;
    if (count == 0) {
      t = Tensor();
      return;
    }
    t = t.narrow(dim, t.size(dim) - count, count);
    if (!at::GradMode::is_enabled()) t = t.clone(at::MemoryFormat::Contiguous);
  };
  last(k, raw, 2);
  last(v, raw, 2);
  last(positions, raw, 0);
  last(q, unread, 2);
  last(u, unread, 1);
}

int64_t OpenBases::num_bytes() const {
  int64_t total = 0;
  for_each(*this, [&](const char*, const Tensor& t) { total += cache::storage_bytes(t); });
  return total;
}

OpenBases OpenBases::clone() const {
  OpenBases out = *this;
  for_each(out, [](const char*, Tensor& t) { t = t.defined() ? t.clone() : t; });
  return out;
}

void OpenBases::detach() {
  for_each(*this, [](const char*, Tensor& t) { t = t.defined() ? t.detach() : t; });
}

void OpenBases::save(cache::TensorMap& out) const {
  for_each(*this, [&](const char* name, const Tensor& t) {
    if (t.defined()) out.emplace(name, cache::saved_tensor(t));
  });
}

void OpenBases::load(const cache::TensorMap& saved, const at::Device& device) {
  for_each(*this, [&](const char* name, Tensor& t) {
    if (saved.contains(name)) t = cache::loaded_tensor(saved, name, device);
  });
  if (k.defined() != positions.defined())
    fail<CheckpointError>("a saved stream state does not belong to a compressed memory");
}

}  // namespace focus::compress
