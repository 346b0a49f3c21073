// Raw keys and values of the open window, and what else is needed until they are summarised. Legend: B batch,
// H query heads, G key/value heads, n open bases, E head dimension, D width.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "focus/cache/stream_state.h"

namespace focus::compress {

struct OpenBases {
  at::Tensor k, v;  // [B, G, n, E]
  at::Tensor q, u;  // [B, H, unread, E], [B, unread, D] of the last bases; undefined where nobody reads them
  at::Tensor positions;  // [n] rotary positions

  int64_t size() const { return k.defined() ? k.size(2) : 0; }
  /// Bases that are not summarised yet: the last ones. All of them where inputs are not kept.
  int64_t num_unread() const { return u.defined() ? u.size(1) : 0; }
  /// An undefined `q_new` or `u_new` is not kept.
  void append(const at::Tensor& k_new, const at::Tensor& v_new, const at::Tensor& q_new,
              const at::Tensor& u_new, const at::Tensor& positions_new);
  /// Drops all but the last `raw` bases, and queries and inputs of all but the last `unread`.
  void keep(int64_t raw, int64_t unread);
  void clear() { *this = {}; }

  int64_t num_bytes() const;
  OpenBases clone() const;
  void detach();
  void save(cache::TensorMap& out) const;
  /// CheckpointError when the tensors are none of a compressed memory's.
  void load(const cache::TensorMap& saved, const at::Device& device);
};

}  // namespace focus::compress
