// StripedHyena 2 assembled from its config. It knows nothing of compression: the one hook below, called at attention layers, is the
// seam; without a hook the model is exactly Evo-2. Legend: B batch, L length, D width, V vocabulary.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/model/config.h"
#include "focus/nn/layers.h"

namespace focus::model {

/// What an attention layer shows its hook.
struct AttentionCall {
  const nn::Attention& attention;
  const nn::RmsNorm& pre_norm;
  int64_t block = 0;                   // index of the block in the model
  at::Tensor x_BLD;                    // residual stream before the layer
  at::Tensor u_BLD;                    // pre_norm(x)
  int64_t position = 0;                // position of the first token
  cache::LayerState* state = nullptr;  // the hook's own state for this layer; null in a stateless pass
};

class AttentionHook {
 public:
  virtual ~AttentionHook() = default;
  /// Replaces the layer's attention: returns what is added to the residual stream, [B, L, D].
  virtual at::Tensor mix(const AttentionCall& call) = 0;
  virtual std::unique_ptr<cache::LayerState> make_state(int64_t block) = 0;
};

class Block : public torch::nn::Module {
 public:
  Block(const ModelConfig& config, int64_t index);
  at::Tensor forward(const at::Tensor& x_BLD, int64_t position, cache::LayerState* state, AttentionHook* hook);
  std::unique_ptr<cache::LayerState> make_state(AttentionHook* hook) const;
  BlockKind kind() const { return kind_; }

  std::shared_ptr<nn::RmsNorm> pre_norm, post_norm;
  std::shared_ptr<nn::GatedMlp> mlp;
  std::shared_ptr<nn::Linear> projections, out_filter_dense;  // Hyena blocks
  std::shared_ptr<nn::HyenaFilter> filter;                    // Hyena blocks
  std::shared_ptr<nn::Attention> inner_mha_cls;               // attention blocks

 private:
  at::Tensor attend(const at::Tensor& u, int64_t position, cache::LayerState* state) const;
  BlockKind kind_;
  int64_t index_;
  std::unique_ptr<nn::HyenaMixer> mixer_;
};

/// Children named "0", "1", ...
class BlockList : public torch::nn::Module {
 public:
  explicit BlockList(const ModelConfig& config);
  std::vector<std::shared_ptr<Block>> items;
};

class Embedding : public torch::nn::Module {
 public:
  Embedding(int64_t vocab, int64_t width);
  at::Tensor weight;  // [V, D]
};

class StripedHyena : public torch::nn::Module {
 public:
  explicit StripedHyena(ModelConfig config);

  /// tokens [B, L] int64 -> [B, L, D].
  at::Tensor embed(const at::Tensor& tokens_BL) const;
  /// Runs all blocks and the final norm on embedded tokens of any length >= 1. With a state, the chunk continues the stream and the state
  /// is advanced; without, it is a whole sequence from position 0.
  at::Tensor forward_embedded(const at::Tensor& x_BLD, cache::StreamState* state, AttentionHook* hook = nullptr);
  /// Final hidden states [B, L, D] -> logits [B, L, V] (tied embedding).
  at::Tensor unembed(const at::Tensor& hidden_BLD) const;
  /// embed, forward_embedded, unembed.
  at::Tensor forward(const at::Tensor& tokens_BL, cache::StreamState* state = nullptr, AttentionHook* hook = nullptr);

  const ModelConfig& config() const { return config_; }
  std::vector<int64_t> attention_blocks() const;
  at::Device device() const { return embedding_layer->weight.device(); }
  at::ScalarType dtype() const { return embedding_layer->weight.scalar_type(); }
  int64_t num_parameters() const;
  /// Rounds weights to `dtype`; poles, residues and rotary frequencies stay fp32 (fp64 when dtype is fp64, for tests).
  void cast(at::ScalarType dtype);
  void set_trainable(bool trainable);

  std::shared_ptr<Embedding> embedding_layer;
  std::shared_ptr<BlockList> blocks;
  std::shared_ptr<nn::RmsNorm> norm;

 private:
  ModelConfig config_;
};

}  // namespace focus::model
