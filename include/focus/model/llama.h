// A plain decoder-only transformer (Llama, Mistral, Qwen2): RMS norm, rotary grouped-query attention, SwiGLU.
// Modules are named as in Hugging Face checkpoints. Legend: B batch, L length, D width, V vocabulary.
//
// Where it rounds otherwise than the reference in bf16: rotary angles, their sines and the rotation stay fp32
// and are rounded once (tests/model/llama_test.cpp holds the error against fp32 below 1.5 times the
// reference's own).
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "focus/model/backbone.h"
#include "focus/model/llama_config.h"
#include "focus/nn/attention.h"
#include "focus/nn/linear.h"
#include "focus/nn/mlp.h"
#include "focus/nn/rms_norm.h"

namespace focus::model {

class LlamaBlock final : public Block {
 public:
  LlamaBlock(const LlamaConfig& config, const at::Tensor& frequencies, int64_t index);
  at::Tensor forward(const at::Tensor& x_BLD, int64_t position, cache::LayerState* state,
                     AttentionHook* hook) override;
  std::unique_ptr<cache::LayerState> make_state(AttentionHook* hook, int64_t expected_length) const override;
  const nn::Attention* attention() const override { return self_attn.get(); }
  int64_t workspace_bytes() const override;

  std::shared_ptr<nn::RmsNorm> input_layernorm, post_attention_layernorm;
  std::shared_ptr<nn::Attention> self_attn;
  std::shared_ptr<nn::SwiGluMlp> mlp;

 private:
  int64_t index_;
};

/// Everything but the unembedding; children of "layers" are "0", "1", ...
class LlamaBody : public torch::nn::Module {
 public:
  explicit LlamaBody(const LlamaConfig& config);
  std::shared_ptr<nn::Embedding> embed_tokens;
  std::vector<std::shared_ptr<LlamaBlock>> layers;
  std::shared_ptr<nn::RmsNorm> norm;
};

class Llama final : public Backbone {
 public:
  Llama(LlamaConfig config, const Vocabulary& vocabulary);

  at::Tensor embed(const at::Tensor& tokens_BL) const override;
  at::Tensor unembed(const at::Tensor& hidden_BLD) const override;
  std::shared_ptr<Backbone> twin() const override;
  const at::Tensor& embedding_weight() const override { return model->embed_tokens->weight; }
  const LlamaConfig& config() const { return config_; }

  std::shared_ptr<LlamaBody> model;
  std::shared_ptr<nn::Linear> lm_head;  // null where tied

 private:
  at::Tensor final_norm(const at::Tensor& x_BLD) const override { return model->norm->forward(x_BLD); }
  LlamaConfig config_;
};

/// Rotary frequencies [E/2] fp32, scaled as the configuration says. Computed in fp32 throughout, as in the
/// reference: far along a sequence an angle is a large multiple of their last digit.
at::Tensor llama_frequencies(const LlamaConfig& config);

}  // namespace focus::model
