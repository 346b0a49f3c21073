// StripedHyena 2 assembled from its config. Legend: B batch, L length, D width, V vocabulary.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "focus/model/backbone.h"
#include "focus/model/config.h"
#include "focus/nn/hyena.h"
#include "focus/nn/linear.h"
#include "focus/nn/mlp.h"
#include "focus/nn/rms_norm.h"

namespace focus::model {

class StripedHyenaBlock final : public Block {
 public:
  StripedHyenaBlock(const ModelConfig& config, int64_t index);
  at::Tensor forward(const at::Tensor& x_BLD, int64_t position, cache::LayerState* state,
                     AttentionHook* hook) override;
  std::unique_ptr<cache::LayerState> make_state(AttentionHook* hook, int64_t expected_length) const override;
  const nn::Attention* attention() const override { return inner_mha_cls.get(); }
  int64_t state_bytes() const override;
  int64_t workspace_bytes() const override;
  BlockKind kind() const { return kind_; }

  std::shared_ptr<nn::RmsNorm> pre_norm, post_norm;
  std::shared_ptr<nn::GatedMlp> mlp;
  std::shared_ptr<nn::Linear> projections, out_filter_dense;  // Hyena blocks
  std::shared_ptr<nn::HyenaFilter> filter;                    // Hyena blocks
  std::shared_ptr<nn::Attention> inner_mha_cls;               // attention blocks

 private:
  BlockKind kind_;
  int64_t index_;
  std::unique_ptr<nn::HyenaMixer> mixer_;
};

/// Children named "0", "1", ...
class BlockList : public torch::nn::Module {
 public:
  explicit BlockList(const ModelConfig& config);
  std::vector<std::shared_ptr<StripedHyenaBlock>> items;
};

class StripedHyena final : public Backbone {
 public:
  explicit StripedHyena(ModelConfig config);

  at::Tensor embed(const at::Tensor& tokens_BL) const override;
  /// The unembedding is the embedding matrix.
  at::Tensor unembed(const at::Tensor& hidden_BLD) const override;
  std::shared_ptr<Backbone> twin() const override;
  const at::Tensor& embedding_weight() const override { return embedding_layer->weight; }
  /// Poles and residues stay fp32 (fp64 in fp64, for tests), as do the rotary frequencies, which are a
  /// buffer.
  at::ScalarType dtype_of_parameter(const std::string& name, at::ScalarType compute) const override;
  const ModelConfig& config() const { return config_; }

  std::shared_ptr<nn::Embedding> embedding_layer;
  std::shared_ptr<BlockList> blocks;
  std::shared_ptr<nn::RmsNorm> norm;

 private:
  at::Tensor final_norm(const at::Tensor& x_BLD) const override {
    return norm ? norm->forward(x_BLD) : x_BLD;
  }
  ModelConfig config_;
};

}  // namespace focus::model
