#include "focus/core/error.h"
#include "hooks.h"

namespace focus::compress {
namespace {

using at::Tensor;

// Into storage of its own: a view would keep the whole call's projections alive for as long as the window is open.
Tensor join(const Tensor& before, const Tensor& now, int64_t dim) {
  if (before.defined()) return at::cat({before, now}, dim);
  return at::GradMode::is_enabled() ? now : now.clone(at::MemoryFormat::Contiguous);
}
Tensor copy(const Tensor& t) { return t.defined() ? t.clone() : t; }
Tensor cut(const Tensor& t) { return t.defined() ? t.detach() : t; }

}  // namespace

std::unique_ptr<cache::LayerState> MemoryState::clone() const {
  auto out = std::make_unique<MemoryState>();
  out->retained = retained.clone();
  out->hidden = hidden;
  out->letters = letters.clone();
  out->k = copy(k);
  out->v = copy(v);
  out->q = copy(q);
  out->u = copy(u);
  out->positions = copy(positions);
  for (const Tensor& x : focus_x) out->focus_x.push_back(copy(x));
  return out;
}

int64_t MemoryState::open_bytes() const {
  int64_t total = 0;
  for (const Tensor* t : {&k, &v, &q, &u, &positions}) total += cache::storage_bytes(*t);
  for (const Tensor& x : focus_x) total += cache::storage_bytes(x);
  return total;
}

void MemoryState::detach() {
  retained.detach();
  for (Tensor* t : {&k, &v, &q, &u}) *t = cut(*t);
  for (Tensor& x : focus_x) x = cut(x);
}

void MemoryState::append(const Tensor& k_new, const Tensor& v_new, const Tensor& q_new, const Tensor& u_new, const Tensor& positions_new) {
  k = join(k, k_new, 2);
  v = join(v, v_new, 2);
  if (q_new.defined()) q = join(q, q_new, 2);
  if (u_new.defined()) u = join(u, u_new, 1);
  positions = join(positions, positions_new, 0);
}

void MemoryState::keep_open(int64_t raw, int64_t unread) {
  if (raw == 0) {
    k = v = q = u = positions = Tensor();
    focus_x.clear();
    return;
  }
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

cache::TensorMap MemoryState::save() const {
  cache::TensorMap out;
  const auto put = [&](const std::string& name, const Tensor& t) {
    if (t.defined()) out.emplace(name, cache::saved_tensor(t));
  };
  retained.save(out);
  if (hidden > 0) out.emplace("hidden", at::full({1}, hidden, at::kLong));
  if (letters.size() > 0) {
    out.emplace("letters", letters.saved());
    out.emplace("letters.count", at::full({1}, letters.size(), at::kLong));
  }
  put("k", k);
  put("v", v);
  put("q", q);
  put("u", u);
  put("positions", positions);
  if (!focus_x.empty()) out.emplace("focus_x", cache::saved_tensor(at::cat(focus_x, 1)));
  return out;
}

void MemoryState::load(const cache::TensorMap& saved, const at::Device& device) {
  const auto get = [&](const std::string& name) { return saved.contains(name) ? cache::loaded_tensor(saved, name, device) : Tensor(); };
  retained.load(saved, device);
  hidden = saved.contains("hidden") ? cache::loaded_tensor(saved, "hidden", at::kCPU).item<int64_t>() : 0;
  if (hidden > retained.size()) fail<CheckpointError>("a saved stream state does not belong to a compressed memory");
  if (saved.contains("letters"))
    letters.load(cache::loaded_tensor(saved, "letters", at::kCPU), cache::loaded_tensor(saved, "letters.count", at::kCPU).item<int64_t>());
  k = get("k");
  v = get("v");
  q = get("q");
  u = get("u");
  positions = get("positions");
  if (k.defined() != positions.defined()) fail<CheckpointError>("a saved stream state does not belong to a compressed memory");
  if (saved.contains("focus_x")) {
    for (const Tensor& x : cache::loaded_tensor(saved, "focus_x", device).split(1, 1)) focus_x.push_back(x.clone());
  }
}

}  // namespace focus::compress
