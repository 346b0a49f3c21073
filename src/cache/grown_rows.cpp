#include "focus/cache/grown_rows.h"

#include <algorithm>
#include <limits>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"

namespace focus::cache {

using at::Tensor;

void GrownRows::append(const Tensor& rows, bool recorded, bool on_host) {
  if (!rows.defined() || rows.size(axis_) == 0) return;
  is_stretched_ = false;
  const int64_t added = rows.size(axis_);
  if (recorded || (size_ > 0 && store_.requires_grad())) {
    assign(size_ > 0 ? at::cat({this->rows(), rows}, axis_) : rows);
    return;
  }
  const at::NoGradGuard no_grad;
  make_room(rows, on_host);
  store_.narrow(axis_, begin_ + size_, added).copy_(rows, /*non_blocking=*/on_host);
  size_ += added;
  written_ = std::max(written_, begin_ + size_);
}

void GrownRows::append(const Tensor& row, const Stretch& stretch) {
  if (!row.defined()) return;
  FOCUS_CHECK(row.size(axis_) == 1, "a stretch comes row by row, got ", row.sizes());
  const at::NoGradGuard no_grad;
  make_room(row, /*on_host=*/false);
  const int64_t first = begin_ + size_ - stretch.read;  // of the stretch
  FOCUS_CHECK(first >= 0, "rows were dropped within a stretch");
  store_.narrow(axis_, first, store_.size(axis_) - first)
      .index_copy_(axis_, stretch.index.to(store_.device()), row);
  is_stretched_ = true;
  advance();
}

int64_t GrownRows::room() const {
  if (!is_stretched_) return std::numeric_limits<int64_t>::max();
  return store_.size(axis_) - begin_ - size_;
}

void GrownRows::make_room(const Tensor& rows, bool on_host) {
  const int64_t added = rows.size(axis_);
  if (store_.defined()) {
    std::vector<int64_t> shape = rows.sizes().vec();
    shape[static_cast<std::size_t>(axis_)] = store_.size(axis_);
    const bool fits = store_.sizes() == shape && store_.scalar_type() == rows.scalar_type();
    if (size_ == 0 && !is_shared() && fits) begin_ = written_ = 0;
    const int64_t next = begin_ + size_;
    const bool unseen = next >= written_ || !is_shared();
    if (fits && unseen && next + added <= store_.size(axis_) && !store_.requires_grad()) return;
    FOCUS_CHECK(size_ == 0 || fits, "rows ", rows.sizes(), " of ", rows.dtype(), " cannot follow ",
                store_.sizes(), " of ", store_.dtype());
  }
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[static_cast<std::size_t>(axis_)] =
      size_ == 0 ? std::max(added, room_) : std::max({size_ + added, size_ + size_ / 2, room_});
  auto options = rows.options().requires_grad(false);
  if (on_host) options = options.device(at::kCPU).pinned_memory(!rows.is_cpu());
  Tensor bigger = at::empty(shape, options);
  if (size_ > 0) {
    if (on_host) ops::wait_for(rows.device());
    bigger.narrow(axis_, 0, size_).copy_(this->rows());
  }
  store_ = bigger;
  begin_ = 0;
  written_ = size_;
}

void GrownRows::keep(int64_t begin, int64_t end) {
  FOCUS_CHECK(begin >= 0 && begin <= end && end <= size_, "rows ", begin, "..", end, " of ", size_);
  begin_ += begin;
  size_ = end - begin;
  is_stretched_ = false;
}

void GrownRows::assign(const Tensor& rows) {
  store_ = rows;
  begin_ = 0;
  is_stretched_ = false;
  size_ = written_ = rows.defined() ? rows.size(axis_) : 0;
}

int64_t GrownRows::num_bytes() const { return size_ > 0 ? static_cast<int64_t>(rows().nbytes()) : 0; }

int64_t GrownRows::storage_bytes() const {
  return store_.defined() ? static_cast<int64_t>(store_.storage().nbytes()) : 0;
}

GrownRows GrownRows::clone() const {
  GrownRows out(axis_, room_);
  if (size_ > 0) out.assign(rows().clone(at::MemoryFormat::Contiguous));
  return out;
}

void GrownRows::detach() {
  if (store_.defined()) store_ = store_.detach();
}

}  // namespace focus::cache
