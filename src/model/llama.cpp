#include "focus/model/llama.h"

#include <algorithm>
#include <numbers>

#include "focus/nn/parameter.h"
#include "focus/ops/linear.h"

namespace focus::model {

using at::Tensor;

Tensor llama_frequencies(const LlamaConfig& c) {
  const Tensor exponent = at::arange(0, c.head_dim, 2, at::kFloat) / static_cast<double>(c.head_dim);
  const Tensor plain = at::pow(at::Scalar(c.rotary_base), exponent).reciprocal();
  if (c.rotary_scaling == RotaryScaling::none) return plain;
  const Tensor slowed = plain / c.rotary_factor;
  if (c.rotary_scaling == RotaryScaling::linear) return slowed;
  // llama3: short waves stay, long ones are slowed by the factor, those between go from one to the other,
  // linearly in how many of them fit into the original length.
  const auto length = static_cast<double>(c.original_length);
  const Tensor wave = plain.reciprocal() * (2 * std::numbers::pi), fitting = wave.reciprocal() * length;
  const Tensor kept = (fitting - c.low_frequency_factor) / (c.high_frequency_factor - c.low_frequency_factor);
  const Tensor between = (1 - kept) * slowed + kept * plain;
  return at::where(wave < length / c.high_frequency_factor, plain,
                   at::where(wave > length / c.low_frequency_factor, slowed, between));
}

LlamaBlock::LlamaBlock(const LlamaConfig& c, const Tensor& frequencies, int64_t index) : index_(index) {
  const auto norm = [&] { return std::make_shared<nn::RmsNorm>(c.hidden_size, c.eps, nn::Epsilon::inside); };
  nn::AttentionOptions options;
  options.layout = nn::AttentionLayout::separate;
  options.width = c.hidden_size;
  options.heads = c.num_heads;
  options.kv_heads = c.num_kv_heads;
  options.dim = c.head_dim;
  options.inv_freq = frequencies;
  options.qkv_bias = c.qkv_bias;
  options.out_bias = c.out_bias;
  self_attn = register_module("self_attn", std::make_shared<nn::Attention>(options));
  mlp = register_module("mlp", std::make_shared<nn::SwiGluMlp>(c.hidden_size, c.inner_size, c.mlp_bias));
  input_layernorm = register_module("input_layernorm", norm());
  post_attention_layernorm = register_module("post_attention_layernorm", norm());
}

std::unique_ptr<cache::LayerState> LlamaBlock::make_state(AttentionHook* hook,
                                                          int64_t expected_length) const {
  if (hook != nullptr) return hook->make_state(index_);
  return std::make_unique<cache::KeyValueState>(expected_length);
}

int64_t LlamaBlock::workspace_bytes() const {
  const auto& o = self_attn->options();
  const int64_t inner = mlp->gate_proj->weight.size(0), channels = (o.heads + 2 * o.kv_heads) * o.dim;
  const auto element = static_cast<int64_t>(mlp->gate_proj->weight.element_size());
  const int64_t wide = std::max<int64_t>(element, sizeof(float));
  const int64_t residual =
      3 * o.width * element;  // block input, its sum with the attention, the normed input
  // Queries, keys and values twice, the rotation in fp32 beside them, the context, keys and values once for
  // each query head.
  const int64_t attention = 2 * channels * element + 2 * channels * wide + 4 * o.heads * o.dim * element;
  return residual + std::max({attention, 3 * inner * element, 3 * o.width * wide});
}

Tensor LlamaBlock::forward(const Tensor& x_BLD, int64_t position, cache::LayerState* state,
                           AttentionHook* hook) {
  const Tensor u = input_layernorm->forward(x_BLD);
  const Tensor mixed = hook != nullptr
                           ? hook->mix({*self_attn, *input_layernorm, index_, x_BLD, u, position, state})
                           : attend(*self_attn, u, position, state);
  const auto [x, normed] = post_attention_layernorm->add(x_BLD, mixed);
  return mlp->forward(normed, x);
}

LlamaBody::LlamaBody(const LlamaConfig& c) {
  embed_tokens =
      register_module("embed_tokens", std::make_shared<nn::Embedding>(c.vocab_size, c.hidden_size));
  const Tensor frequencies = llama_frequencies(c);
  const auto list = register_module("layers", std::make_shared<torch::nn::Module>());
  for (int64_t i = 0; i < c.num_layers; ++i)
    layers.push_back(
        list->register_module(std::to_string(i), std::make_shared<LlamaBlock>(c, frequencies, i)));
  norm = register_module("norm", std::make_shared<nn::RmsNorm>(c.hidden_size, c.eps, nn::Epsilon::inside));
}

Llama::Llama(LlamaConfig config, const Vocabulary& vocabulary) : config_(std::move(config)) {
  const auto& c = config_;
  shape_ = {c.name, c.vocab_size, c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.max_length};
  vocabulary_ = vocabulary;
  model = register_module("model", std::make_shared<LlamaBody>(c));
  if (!c.tied)
    lm_head = register_module("lm_head", std::make_shared<nn::Linear>(c.hidden_size, c.vocab_size, false));
  blocks_.assign(model->layers.begin(), model->layers.end());
}

Tensor Llama::embed(const Tensor& tokens_BL) const { return at::embedding(embedding_weight(), tokens_BL); }

Tensor Llama::unembed(const Tensor& hidden_BLD) const {
  return ops::linear(hidden_BLD, lm_head ? lm_head->weight : embedding_weight(), {});
}

std::shared_ptr<Backbone> Llama::twin() const {
  const nn::DeferAllocation no_memory;
  auto out = std::make_shared<Llama>(config_, vocabulary_);
  out->alias(*this);
  return out;
}

}  // namespace focus::model
