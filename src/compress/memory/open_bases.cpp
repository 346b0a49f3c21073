#include "open_bases.h"

#include <algorithm>
#include <limits>

#include "focus/core/error.h"

namespace focus::compress {

using at::Tensor;
using cache::GrownRows;

void OpenBases::append(const Tensor& k, const Tensor& v, const Tensor& q, const Tensor& u,
                       const Tensor& positions, const cache::Stretch* stretch) {
  const bool recorded = at::GradMode::is_enabled();
  const auto add = [&](GrownRows& to, const Tensor& rows) {
    stretch != nullptr ? to.append(rows, *stretch) : to.append(rows, recorded);
  };
  add(k_, k);
  add(v_, v);
  add(q_, q);
  add(u_, u);
  add(positions_, positions);
}

OpenBases::Shown OpenBases::shown(const cache::Stretch* stretch) const {
  if (stretch == nullptr) return {k(), v(), {}};
  return {k_.rows_and_room(), v_.rows_and_room(), stretch->counted(size(), at::kInt, k().device())};
}

int64_t OpenBases::room() const {
  int64_t least = std::numeric_limits<int64_t>::max();
  for_each(*this, [&](const char*, const GrownRows& rows) { least = std::min(least, rows.room()); });
  return least;
}

void OpenBases::advance() {
  for_each(*this, [](const char*, GrownRows& rows) { rows.advance(); });
}

void OpenBases::keep(int64_t raw, int64_t unread) {
  const auto last = [](GrownRows& rows, int64_t count) { rows.keep_last(std::min(count, rows.size())); };
  last(k_, raw);
  last(v_, raw);
  last(positions_, raw);
  last(q_, std::min(raw, unread));
  last(u_, std::min(raw, unread));
}

int64_t OpenBases::num_bytes() const {
  int64_t total = 0;
  for_each(*this, [&](const char*, const GrownRows& rows) { total += rows.num_bytes(); });
  return total;
}

OpenBases OpenBases::clone() const {
  OpenBases out = *this;
  for_each(out, [](const char*, GrownRows& rows) { rows = rows.clone(); });
  return out;
}

void OpenBases::detach() {
  for_each(*this, [](const char*, GrownRows& rows) { rows.detach(); });
}

void OpenBases::save(cache::TensorMap& out) const {
  for_each(*this, [&](const char* name, const GrownRows& rows) {
    if (!rows.empty()) out.emplace(name, cache::saved_tensor(rows.rows()));
  });
}

void OpenBases::load(const cache::TensorMap& saved, const at::Device& device) {
  for_each(*this, [&](const char* name, GrownRows& rows) {
    if (saved.contains(name)) rows.assign(cache::loaded_tensor(saved, name, device));
  });
  if (k_.empty() != positions_.empty())
    fail<CheckpointError>("a saved stream state does not belong to a compressed memory");
}

}  // namespace focus::compress
