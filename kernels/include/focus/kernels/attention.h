// One softmax over several blocks of keys, without ever holding a row of its weights: keys are read once,
// block by block, while the largest score so far, the sum of weights and the weighted sum of values are
// carried along. Queries, keys and values are fp32 or bf16, everything between them is fp32, and the result
// is rounded once. The instruction set is picked at run time (cpu.h).
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"

namespace focus::kernels {

/// Rows of one call at the most, and what callers split them at multiples of. Results do not depend on how.
inline constexpr int64_t kAttentionRows = 256, kAttentionTile = 32;
/// With fewer rows, queries and heads together, a few rows share each key and value that is read; from here
/// on they are worked off in tiles, for which keys and values of many rows are packed.
inline constexpr int64_t kAttentionFewRows = 12;
/// Keys that few rows score before values are read, and between the scores of two rows: room for a register
/// beyond the last key.
inline constexpr int64_t kAttentionKeys = 128, kAttentionPitch = kAttentionKeys + 16;
/// Keys that are packed at a time.
inline constexpr int64_t kAttentionBlock = 192;
/// fp32 values of working memory for calls with at most `rows` rows each, of any instruction set.
inline constexpr int64_t attention_scratch(int64_t rows, int64_t group, int64_t dim) {
  const int64_t padded = linear_padded(dim),
                whole = (rows + kAttentionTile - 1) / kAttentionTile * kAttentionTile;
  return rows < kAttentionFewRows ? rows * (3 * padded + kAttentionPitch) + 3 * padded
                                  : (2 * whole + 2 * kAttentionBlock + 18) * padded +
                                        (kAttentionTile + group) * kAttentionBlock + 16;
}

/// Rows of whole numbers [keys, dim] in place of keys or values: value = low + step * code. 8 bits, or 4 with
/// the even channel in the low half of a byte; low and step are fp16.
struct AttentionCodes {
  const uint8_t* codes = nullptr;
  int64_t stride = 0;  // bytes
  const uint16_t *low = nullptr, *step = nullptr;
  int64_t scale_stride = 0;            // between rows of scales
  const int32_t* scale_row = nullptr;  // [keys]: rows of scales, one of each channel; null: a key has its own
                                       // row with one for all channels. Values always have that
};

/// Keys and values of one head, [keys, dim] with contiguous rows `stride` values apart.
template <class T>
struct AttentionPart {
  const T* k;
  const T* v;
  int64_t k_stride, v_stride, keys;
  const float*
      beta;  // [group, keys] added to the scores, rows beta_stride apart (0: shared by the group); or null
  int64_t beta_stride;
  bool causal;   // query i sees only the first keys - queries + 1 + i
  int bits = 0;  // 8 or 4: k_codes and v_codes in place of k and v
  AttentionCodes k_codes = {}, v_codes = {};
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
  float* log_sum = nullptr;  // [group, queries], written: the logarithm of the sum of exp(score); or null
};

/// Rows [begin, end) of queries x group, the head running fastest. A query that sees no key gets zeros.
template <class T>
void attention(const Attention<T>& args, int64_t begin, int64_t end);

/// What the gradients of a part are added to; null: none is asked for.
struct AttentionPartGradient {
  float *k = nullptr, *v = nullptr;  // [keys, dim]
  float* beta = nullptr;             // [group, keys], or [keys] where the group shares them
};
template <class T>
struct AttentionGradient {
  Attention<T> attention;  // as it ran: `out` and `log_sum` are read
  const T* grad;           // of out, [group, queries, dim]
  int64_t grad_head_stride, grad_stride;
  const AttentionPartGradient* parts;  // one for each of the attention's
  float* q;                            // [rows, linear_padded(dim)], added to
};
/// fp32 values of `attention.scratch` for gradients.
inline constexpr int64_t attention_gradient_scratch(int64_t group, int64_t dim) {
  return (2 * 64 + 5 * kAttentionBlock + 18) * linear_padded(dim) + (2 * 64 + 2 * group) * kAttentionBlock +
         16;
}
/// What rows [begin, end) give and get through blocks [first, last) of kAttentionBlock keys each, counted
/// over all parts. A key's gradients are added up row by row, a row's key by key.
template <class T>
void attention_gradient(const AttentionGradient<T>& args, int64_t begin, int64_t end, int64_t first,
                        int64_t last);

}  // namespace focus::kernels
