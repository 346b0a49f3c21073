// Rows along one axis of a tensor, with room for more.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "focus/cache/stretch.h"

namespace focus::cache {

/// Appending copies what is new alone; when the room is used up, everything moves to half as much again.
/// Dropping moves nothing: room that the dropped rows leave is used again once no row is left. A copy shares
/// memory with its original, and stays what it is while the original goes on: of the two only one may ever
/// be appended to again. Where gradients are recorded, appending makes a new tensor, since what a graph holds
/// must not be written over.
class GrownRows {
 public:
  /// `axis` of the rows; `room`: rows that the first append makes room for.
  explicit GrownRows(int64_t axis = 2, int64_t room = 0) : axis_(axis), room_(room) {}

  /// Into memory of their own: a view would keep alive what it is a view of. `on_host`: into pinned memory of
  /// the host where the rows come from a card; the host waits for none of it, and whoever reads the rows
  /// there calls ops::wait_for first. Undefined rows are none.
  void append(const at::Tensor& rows, bool recorded, bool on_host = false);
  /// One row, without a gradient, at a place that only the device knows. It lies where append() would put it.
  void append(const at::Tensor& row, const Stretch& stretch);
  /// Takes note of a row that a replay of the last call has appended. Nothing where that appended none.
  void advance() { size_ += is_stretched_ ? 1 : 0, written_ = std::max(written_, begin_ + size_); }
  /// The most that advance() can still be called.
  int64_t room() const;
  /// Drops all but rows [begin, end).
  void keep(int64_t begin, int64_t end);
  void keep_last(int64_t count) { keep(size_ - count, size_); }
  /// Nothing but `rows`, as they are.
  void assign(const at::Tensor& rows);

  /// A view; undefined where there are none.
  at::Tensor rows() const { return size_ > 0 ? store_.narrow(axis_, begin_, size_) : at::Tensor(); }
  /// The rows and the room for more behind them.
  at::Tensor rows_and_room() const { return store_.narrow(axis_, begin_, store_.size(axis_) - begin_); }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  /// Of the rows, and of all that they stand in.
  int64_t num_bytes() const;
  int64_t storage_bytes() const;

  GrownRows clone() const;
  void detach();

 private:
  bool is_shared() const { return store_.use_count() > 1 || store_.storage().use_count() > 1; }
  void make_room(const at::Tensor& rows, bool on_host);

  int64_t axis_, room_;
  at::Tensor store_;
  int64_t begin_ = 0, size_ = 0;
  int64_t written_ = 0;        // rows of the store that may be seen by a copy
  bool is_stretched_ = false;  // the last row came in a stretch
};

}  // namespace focus::cache
