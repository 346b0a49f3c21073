// One softmax over everything a query may see. Legend: B batch, H heads, Q queries, S keys, E head dimension.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// softmax(q k^T / sqrt(E) + bias) v. `bias` is undefined or broadcasts to [B,H,Q,S] (fp32; -inf hides a key): visibility and the
/// log-mass beta of retained entries both travel in it. Differentiable in q, k, v and bias. A fused kernel is used where the bias needs no
/// gradient, else an explicit softmax in fp32; both give the same values up to rounding.
at::Tensor attention(const at::Tensor& q_BHQE, const at::Tensor& k_BHSE, const at::Tensor& v_BHSE, const at::Tensor& bias);

/// Plain causal attention whose queries are the last Q of S positions (Q <= S).
at::Tensor causal_attention(const at::Tensor& q_BHQE, const at::Tensor& k_BHSE, const at::Tensor& v_BHSE);

/// [Q, S] fp32 bias with 0 where key s <= query position q + S - Q, else -inf.
at::Tensor causal_bias(int64_t num_queries, int64_t num_keys, const at::Device& device);

/// Rotary embedding, halves convention: rotates x [.., L, E] by angle[l,i] = position_l / scaling * inv_freq_i; computed in fp32
/// (fp64 for fp64 input), rounded once. `positions` [L] int64 or floating; inv_freq [E/2] fp32.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& inv_freq, double scaling);

}  // namespace focus::ops
