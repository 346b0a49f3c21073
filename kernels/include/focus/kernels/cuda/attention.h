// Attention on a CUDA device: one softmax over several parts of keys, never with an array of scores. Raw
// device pointers, the caller's stream, 64-bit sizes and strides (in elements), fp32 or bf16 with all sums in
// fp32. Head dimensions 64 and 128 in bf16 with rows on 16-byte boundaries run on tensor cores; every other
// case up to kMaxAttentionDim runs without. Results are the same on every run.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

inline constexpr int kMaxAttentionParts = 3;
inline constexpr int64_t kMaxAttentionDim = 256;

/// Element [b, h, i, e] lies at b * batch + h * head + i * row + e.
struct RowStrides {
  int64_t batch = 0, head = 0, row = 0;
};

/// Rows of whole numbers: value = code * step + low, rounded to bf16. 8 bits, or 4 with the even channel in
/// the low half of a byte. `low` and `step` are fp16, one for each channel of a row of scales, or one for
/// all.
struct QuantisedRows {
  const uint8_t* codes = nullptr;  // [batch, key_heads, keys, dim * bits / 8]
  RowStrides strides;
  const uint16_t *low = nullptr, *step = nullptr;  // [batch, key_heads, rows of scales, dim or 1]
  RowStrides scale_strides;
  const int32_t* scale_row = nullptr;  // [keys], which row of scales a key has; null: its own
  bool per_channel = false;
};

/// Keys that every query sees with a mass each, or the open ones, of which a query sees those up to itself.
template <class T>
struct AttentionPart {
  const T *k = nullptr, *v = nullptr;  // [batch, key_heads, keys, dim]
  RowStrides k_strides, v_strides;
  int64_t keys = 0;
  const int32_t* keys_on_device = nullptr;  // when not null: how many of `keys` there are as the kernel runs
  const float* beta = nullptr;  // [batch, key_heads or heads, keys], added to the scores; null: zeros
  RowStrides beta_strides;
  bool beta_per_query_head = false;
  bool causal = false;  // query i sees only the first keys - queries + 1 + i
  int bits = 0;         // 8 or 4: keys and values are k_codes and v_codes; forward alone, bf16, dim 64 or 128
  QuantisedRows k_codes, v_codes;
};

/// Query head h reads key head h / (heads / key_heads).
template <class T>
struct Attention {
  const T* q = nullptr;  // [batch, heads, queries, dim]
  T* out = nullptr;      // the same shape; zeros for a query that sees nothing
  float* log_sum =
      nullptr;  // [batch, heads, queries] contiguous: log2 of the sum of exp(score + beta); or null
  RowStrides q_strides, out_strides;
  int64_t batch = 0, heads = 0, key_heads = 0, queries = 0, dim = 0;
  float scale = 1;         // of the scores, before beta
  int64_t max_splits = 0;  // among how many blocks a row's keys are shared out at most; 0: no limit
  int num_parts = 0;
  AttentionPart<T> parts[kMaxAttentionParts];
};

/// Whether attention_forward takes these codes: bf16, 64 or 128 channels, everything on boundaries of 8.
template <class T>
bool attention_reads_codes(const Attention<T>& args);

/// fp32 values of working memory that attention_forward needs: keys are shared out among blocks where there
/// are too few queries to fill a card. It depends on `keys`, not on what keys_on_device says.
template <class T>
int64_t attention_workspace(const Attention<T>& args);
/// Throws InternalError with CUDA's reason when a launch fails.
template <class T>
void attention_forward(const Attention<T>& args, float* workspace, void* stream);

/// Among how many blocks a row's keys are shared out.
template <class T>
int64_t attention_shares(const Attention<T>& args);
/// The forward pass in fp32, as attention_merge takes it: outs [shares, batch, heads, queries, dim] and right
/// behind them log_sums [shares, batch, heads, queries], in place of args.out and args.log_sum.
template <class T>
void attention_shares_forward(const Attention<T>& args, float* outs, void* stream);

/// Attention over several sets of keys made into one over all of them, from its fp32 results outs [count,
/// batch, heads, queries, dim] and log_sums [count, batch, heads, queries]; a set whose log_sum is -inf
/// counts for nothing. `log_sum` may be null.
template <class T>
void attention_merge(const float* outs, const float* log_sums, int64_t count, T* out,
                     const RowStrides& out_strides, float* log_sum, int64_t batch, int64_t heads,
                     int64_t queries, int64_t dim, void* stream);

/// What attention_backward reads and writes beside the arguments of the forward pass, whose out and log_sum
/// it reads. Gradients have the shapes of what they belong to, contiguous; null ones are left out.
template <class T>
struct AttentionGradients {
  const T* grad = nullptr;  // of out
  RowStrides grad_strides;
  T* q = nullptr;
  T *k[kMaxAttentionParts] = {}, *v[kMaxAttentionParts] = {};
  float* beta[kMaxAttentionParts] = {};
  float* workspace = nullptr;  // batch * heads * queries values
};
/// Parts with bits or keys_on_device have no backward pass.
template <class T>
void attention_backward(const Attention<T>& args, const AttentionGradients<T>& gradients, void* stream);

}  // namespace focus::kernels::cuda
