#include "open_bases.h"

#include <algorithm>

#include "focus/core/error.h"

namespace focus::compress {

using at::Tensor;
using cache::GrownRows;

void OpenBases::append(const Tensor& k, const Tensor& v, const Tensor& q, const Tensor& u,
                       const Tensor& positions) {
  const bool recorded = at::GradMode::is_enabled();
  k_.append(k, recorded);
  v_.append(v, recorded);
  q_.append(q, recorded);
  u_.append(u, recorded);
  positions_.append(positions, recorded);
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
