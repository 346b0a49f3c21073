// Raw keys and values of the open window, and what else is needed until they are summarised. Legend: B batch,
// H query heads, G key/value heads, n open bases, E head dimension, D width.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "focus/cache/grown_rows.h"
#include "focus/cache/stream_state.h"

#include "focus/compress/plan/plan.h"

namespace focus::compress {

/// Bases that an open window makes room for at once: a whole window, if it is not very long.
inline int64_t open_room(const WindowPlan& plan) {
  return std::min<int64_t>({plan.window(0).size(), plan.window_bases(), 4096});
}

class OpenBases {
 public:
  /// `room`: bases that the first append makes room for.
  explicit OpenBases(int64_t room = 0)
      : k_(2, room), v_(2, room), q_(2, room), u_(1, room), positions_(0, room) {}

  at::Tensor k() const { return k_.rows(); }  // [B, G, n, E]
  at::Tensor v() const { return v_.rows(); }
  /// [B, H, unread, E], [B, unread, D] of the last bases; undefined where nobody reads them.
  at::Tensor q() const { return q_.rows(); }
  at::Tensor u() const { return u_.rows(); }
  at::Tensor positions() const { return positions_.rows(); }  // [n] rotary positions
  /// What attention reads: the bases or, in a stretch, all that there is room for and how many of it the
  /// bases are, for ops::memory_attention.
  struct Shown {
    at::Tensor k, v, num_keys;
  };
  Shown shown(const cache::Stretch* stretch) const;

  int64_t size() const { return k_.size(); }
  /// Bases that are not summarised yet: the last ones. All of them where inputs are not kept.
  int64_t num_unread() const { return u_.size(); }
  /// An undefined `q` or `u` is not kept. `stretch`: that the base belongs to, or null.
  void append(const at::Tensor& k, const at::Tensor& v, const at::Tensor& q, const at::Tensor& u,
              const at::Tensor& positions, const cache::Stretch* stretch = nullptr);
  /// See cache::LayerState.
  int64_t room() const;
  void advance();
  /// Drops all but the last `raw` bases, and queries and inputs of all but the last `unread`.
  void keep(int64_t raw, int64_t unread);
  void clear() { keep(0, 0); }

  /// Of the bases; the room for more, which stays the same from window to window, is not counted.
  int64_t num_bytes() const;
  OpenBases clone() const;
  void detach();
  void save(cache::TensorMap& out) const;
  /// CheckpointError when the tensors are none of a compressed memory's.
  void load(const cache::TensorMap& saved, const at::Device& device);

 private:
  /// f(name, rows) for each; `Open` may be const.
  template <class Open, class F>
  static void for_each(Open& open, const F& f) {
    f("k", open.k_), f("v", open.v_), f("q", open.q_), f("u", open.u_), f("positions", open.positions_);
  }
  cache::GrownRows k_, v_, q_, u_, positions_;
};

}  // namespace focus::compress
