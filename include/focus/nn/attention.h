// Multi-head attention with rotary positions and, where keys and values have fewer heads, grouped queries.
// Legend: B batch, L length, D model width, H query heads, G key/value heads, E head dimension, C output
// channels of a projection.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>

#include "focus/nn/linear.h"
#include "focus/nn/rms_norm.h"

namespace focus::nn {

/// One projection Wqkv and out_proj, as in Evo-2; or q_proj, k_proj, v_proj and o_proj, as in Hugging Face
/// checkpoints.
enum class AttentionLayout { fused, separate };

struct AttentionOptions {
  AttentionLayout layout = AttentionLayout::fused;
  int64_t width = 0;
  int64_t heads = 1;
  int64_t kv_heads =
      0;  // 0 = heads; fewer only in the separate layout: query head h reads key head h / (heads / kv_heads)
  int64_t dim = 0;  // of a head; 0 = width / heads
  double rotary_base = 10000.0;
  double rotary_scaling = 1.0;  // positions are divided by it
  at::Tensor inv_freq;          // [E/2] fp32 rotary frequencies; undefined = from rotary_base
  bool column_split = true;     // fused: Wqkv rows are (head, q|k|v, dim); otherwise (q|k|v, head, dim)
  bool qkv_bias = false;
  bool out_bias = true;
};

class RotaryEmbedding : public torch::nn::Module {
 public:
  explicit RotaryEmbedding(const at::Tensor& frequencies);
  at::Tensor inv_freq;  // buffer [E/2] fp32, used as it is
};

/// base^(-2i/E) for i < E/2, in fp64, rounded to fp32.
at::Tensor rotary_frequencies(int64_t head_dim, double base);

struct Projection {
  at::Tensor q;     // [B, H, L, E]
  at::Tensor k, v;  // [B, G, L, E]
};

/// It knows neither caches nor compression: keys and values come as plain tensors.
class Attention : public torch::nn::Module {
 public:
  /// ConfigError: sizes that do not fit together.
  explicit Attention(const AttentionOptions& options);
  /// `u_BLD` normed input; `positions` [L] (int64). Queries, keys and values; q and k rotated to their
  /// positions.
  Projection project(const at::Tensor& u_BLD, const at::Tensor& positions) const;
  /// Fused: splits Wqkv's output [B, L, 3D] into un-rotated q, k, v.
  Projection split(const at::Tensor& qkv_BLC) const;
  /// Only q (0), k (1) or v (2), before rotation and before its channels are split into heads: [B, L, heads *
  /// E], heads outermost.
  at::Tensor project_part(const at::Tensor& u_BLD, int64_t part) const;
  at::Tensor rotate(const at::Tensor& x_BHLE, const at::Tensor& positions) const;
  /// [B, H, L, E] -> output projection -> [B, L, D].
  at::Tensor output(const at::Tensor& context_BHLE) const;
  const AttentionOptions& options() const { return options_; }
  int64_t heads() const { return options_.heads; }
  int64_t kv_heads() const { return options_.kv_heads; }
  int64_t head_dim() const { return options_.dim; }

  std::shared_ptr<Linear> Wqkv, out_proj;                  // fused
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, o_proj;  // separate
  std::shared_ptr<RotaryEmbedding> rotary_emb;

 private:
  AttentionOptions options_;  // with its zeros resolved
};

}  // namespace focus::nn
