// Attention over keys that come in parts, of which no more than one need exist at a time. Legend as in
// focus/ops/attention.h.
#pragma once

#include <ATen/ATen.h>

#include "focus/ops/attention.h"

namespace focus::ops {

/// What queries read of some of their keys, as if there were no others; fp32, or fp64 for fp64 queries.
struct PartialAttention {
  at::Tensor out;      // [B,H,Q,E], zeros for a query that sees none
  at::Tensor log_sum;  // [B,H,Q] log of the sum of exp(score + beta), at most -1e30 for such a query
};

/// As memory_attention, of a part of the keys. Differentiable in everything, by plain ATen then; keys are
/// worked off in blocks whose scores are no more than `block_bytes`. On a device with a kernel for it there
/// are no scores.
PartialAttention partial_attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                                   const at::Tensor& v_BGSE, int64_t block_bytes = int64_t{64} << 20);

/// One softmax over the keys of both. Differentiable.
PartialAttention merged(const PartialAttention& a, const PartialAttention& b);

}  // namespace focus::ops
