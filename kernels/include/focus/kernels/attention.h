// One softmax over several blocks of keys, without ever holding a row of its weights: keys are read once,
// block by block, while the largest score so far, the sum of weights and the weighted sum of values are
// carried along. Queries, keys and values are fp32 or bf16, everything between them is fp32, and the result
// is rounded once. The instruction set is picked at run time (cpu.h).
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"

namespace focus::kernels {

/// Rows of one call at the most; callers split work at multiples of it, and results do not depend on how.
inline constexpr int64_t kAttentionRows = 64;
/// Keys that are scored before their values are read.
inline constexpr int64_t kAttentionKeys = 128;
/// fp32 values of working memory for one call with this head dimension.
inline constexpr int64_t attention_scratch(int64_t dim) {
  return kAttentionRows * (2 * linear_padded(dim) + kAttentionKeys);
}

/// Keys and values of one head, [keys, dim] with contiguous rows `stride` values apart.
template <class T>
struct AttentionPart {
  const T* k;
  const T* v;
  int64_t k_stride, v_stride, keys;
  const float*
      beta;  // [group, keys] added to the scores, rows beta_stride apart (0: shared by the group); or null
  int64_t beta_stride;
  bool causal;  // query i sees only the first keys - queries + 1 + i
};

/// Queries of the `group` query heads that share one key head.
template <class T>
struct Attention {
  const T* q;  // [group, queries, dim]
  T* out;      // [group, queries, dim]
  int64_t q_head_stride, q_stride, out_head_stride, out_stride;
  int64_t group, queries, dim;
  float scale;  // of the scores, before beta
  const AttentionPart<T>* parts;
  int64_t num_parts;
  float* scratch;
};

/// Rows [begin, end) of queries x group, the head running fastest. A query that sees no key gets zeros.
template <class T>
void attention(const Attention<T>& args, int64_t begin, int64_t end);

}  // namespace focus::kernels
