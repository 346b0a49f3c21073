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
/// Between the scores of two rows: room for a register beyond the last key.
inline constexpr int64_t kAttentionPitch = kAttentionKeys + 16;
/// fp32 values of working memory for one call with this head dimension; `codes`: where a part has some.
inline constexpr int64_t attention_scratch(int64_t dim, bool codes) {
  return kAttentionRows * ((codes ? 4 : 2) * linear_padded(dim) + kAttentionPitch) +
         (codes ? 2 * linear_padded(dim) : 0);
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
};

/// Rows [begin, end) of queries x group, the head running fastest. A query that sees no key gets zeros.
template <class T>
void attention(const Attention<T>& args, int64_t begin, int64_t end);

}  // namespace focus::kernels
