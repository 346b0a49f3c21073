// One softmax over everything a query may see. Legend: B batch, H query heads, G key heads (H / G queries
// share one: query head h uses key head h / (H / G)), Q queries, S keys, P remembered entries, E head
// dimension.
#pragma once

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "focus/ops/quantised.h"

namespace focus::ops {

/// softmax(q k^T / sqrt(E) + bias) v. `bias` is undefined or broadcasts to [B,H,Q,S], or has G heads (fp32;
/// -inf hides a key): visibility and the log-mass beta of retained entries both travel in it. Differentiable
/// in q, k, v and bias. A fused kernel is used where the bias needs no gradient, else an explicit softmax in
/// fp32; both give the same values up to rounding.
at::Tensor attention(const at::Tensor& q_BHQE, const at::Tensor& k_BGSE, const at::Tensor& v_BGSE,
                     const at::Tensor& bias);

/// Entries that lie together. All undefined: none.
struct MemoryPart {
  at::Tensor k = {}, v = {};  // [B,G,P,E]
  at::Tensor beta = {};       // [B,G,P] or [B,H,P] fp32, added to the entries' scores; undefined = 0
  QuantisedTensor k_codes = {}, v_codes = {};  // in place of k and v; values have scales of their own each

  bool in_codes() const { return k_codes.defined() || v_codes.defined(); }
  int64_t size() const { return in_codes() ? k_codes.size() : k.defined() ? k.size(2) : 0; }
  /// Entries [begin, begin + count), views; none of them is none at all.
  MemoryPart narrow(int64_t begin, int64_t count) const;
  /// The same with numbers of this type in place of codes.
  MemoryPart decoded(at::ScalarType type) const;
};

/// What every query sees, in one softmax however it is cut into parts: nothing is joined to be read together.
struct Memory {
  std::vector<MemoryPart> parts;

  Memory() = default;
  Memory(MemoryPart part) : parts{std::move(part)} {}
  int64_t size() const;
  /// Entries [begin, begin + count) of all, views.
  Memory narrow(int64_t begin, int64_t count) const;
  /// What one sequence of the batch sees, views with B = 1.
  Memory of_sequence(int64_t b) const;
};

/// One softmax over the memory and, causally, over k and v (undefined or S = 0: the memory alone), whose last
/// Q positions are the queries'. Differentiable in everything but codes. A query that sees nothing gets
/// zeros. Throws ShapeError. No [Q, P + S] array is ever whole: focus's kernels stream the keys (fp32 or
/// bf16, or codes; sums in fp32, one rounding) on the CPU and on a device with them, and are once
/// differentiable; otherwise blocks of queries are worked off one by one, and recomputed in the backward pass
/// where there is more than one. The parts of a memory are read where they lie, except with gradients, on a
/// device beyond the number its kernel takes, and in plain ATen: there they are joined. Codes become numbers
/// of the queries' type, all at the same time, where parts are joined, in the backward pass of a device, and
/// where its kernel does not read them (fp32, other head dimensions than 64 and 128). `num_keys`, int32 [1]
/// on the same device: only so many of the S keys, the first ones, are there yet, which the host need not
/// know; the others are not read. Not differentiable then.
at::Tensor memory_attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                            const at::Tensor& v_BGSE, const at::Tensor& num_keys = {});
/// The same in plain ATen, for any device and type, with no intermediate array of scores or biases beyond
/// `block_bytes`.
at::Tensor memory_attention_reference(const at::Tensor& q_BHQE, const Memory& memory,
                                      const at::Tensor& k_BGSE, const at::Tensor& v_BGSE,
                                      int64_t block_bytes = int64_t{64} << 20);

/// Plain causal attention whose queries are the last Q of S positions (Q <= S).
at::Tensor causal_attention(const at::Tensor& q_BHQE, const at::Tensor& k_BGSE, const at::Tensor& v_BGSE);

/// [Q, S] fp32 bias with 0 where key s <= query position q + S - Q, else -inf.
at::Tensor causal_bias(int64_t num_queries, int64_t num_keys, const at::Device& device);

/// Rotary embedding, halves convention: rotates x [.., L, E] by angle[l,i] = position_l / scaling *
/// inv_freq_i; computed in fp32 (fp64 for fp64 input), rounded once. `positions` [L] int64 or floating;
/// inv_freq [E/2] fp32.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& inv_freq,
                  double scaling);
/// Queries and keys [B, heads, L, E] rotated. Their memory is the caller's to give away: without gradients
/// they are rotated in place, both in one pass, on a device with kernels of focus's own and, of one position
/// each, on the CPU.
std::pair<at::Tensor, at::Tensor> rotate_in_place(const at::Tensor& q_BHLE, const at::Tensor& k_BGLE,
                                                  const at::Tensor& positions, const at::Tensor& inv_freq,
                                                  double scaling);

}  // namespace focus::ops
