#include "focus/model/striped_hyena.h"

#include "focus/core/error.h"
#include "focus/nn/parameter.h"
#include "focus/ops/linear.h"

namespace focus::model {

using at::Tensor;

StripedHyenaBlock::StripedHyenaBlock(const ModelConfig& c, int64_t index)
    : kind_(c.blocks.at(static_cast<std::size_t>(index))), index_(index) {
  const int64_t width = c.hidden_size;
  pre_norm = register_module("pre_norm", std::make_shared<nn::RmsNorm>(width, c.eps));
  post_norm = register_module("post_norm", std::make_shared<nn::RmsNorm>(width, c.eps));
  // Evo-2 style: GELU in block 0 whatever its kind, the identity everywhere else.
  const bool gelu = !c.evo2_activations || index == 0;
  mlp = register_module("mlp", std::make_shared<nn::GatedMlp>(width, c.inner_mlp_size,
                                                              gelu ? ops::Gate::gelu : ops::Gate::identity));
  if (kind_ == BlockKind::attention) {
    nn::AttentionOptions options;
    options.width = width;
    options.heads = c.num_heads;
    options.rotary_base = c.rotary_base;
    options.rotary_scaling = c.rotary_scaling;
    options.column_split = c.column_split;
    options.qkv_bias = c.qkv_bias;
    options.out_bias = c.attention_out_bias;
    inner_mha_cls = register_module("inner_mha_cls", std::make_shared<nn::Attention>(options));
    return;
  }
  nn::HyenaOptions options;
  options.width = width;
  options.input_taps = c.input_taps;
  options.modes = c.state_size;
  options.kind = nn::HyenaKind::hcl;
  if (kind_ == BlockKind::hcs) {
    options.kind = nn::HyenaKind::hcs;
    options.taps = c.hcs_taps;
    options.groups = c.hcs_groups;
  } else if (kind_ == BlockKind::hcm) {
    options.kind = nn::HyenaKind::hcm;
    options.taps = c.hcm_taps;
    options.groups = c.hcm_groups;
  }
  projections = register_module("projections", std::make_shared<nn::Linear>(width, 3 * width, false));
  out_filter_dense =
      register_module("out_filter_dense", std::make_shared<nn::Linear>(width, width, c.hyena_out_bias));
  filter = register_module("filter", std::make_shared<nn::HyenaFilter>(options));
  mixer_ = std::make_unique<nn::HyenaMixer>(options, filter);
}

std::unique_ptr<cache::LayerState> StripedHyenaBlock::make_state(AttentionHook* hook,
                                                                 int64_t expected_length) const {
  if (kind_ != BlockKind::attention) return std::make_unique<cache::HyenaLayerState>();
  if (hook != nullptr) return hook->make_state(index_);
  return std::make_unique<cache::KeyValueState>(expected_length);
}

int64_t StripedHyenaBlock::state_bytes() const {
  if (!mixer_) return 0;
  const auto& o = mixer_->options();
  const auto element = static_cast<int64_t>(projections->weight.element_size());
  const int64_t fir = (o.input_taps - 1) * 3 * o.width * element;
  if (o.kind == nn::HyenaKind::hcl)
    return fir + o.width * o.modes * std::max<int64_t>(element, sizeof(float));
  return fir + (o.taps - 1) * o.width * element;
}

int64_t StripedHyenaBlock::workspace_bytes() const {
  const int64_t width = pre_norm->scale.size(0), inner = mlp->l1->weight.size(0);
  const auto element = static_cast<int64_t>(mlp->l1->weight.element_size());
  const int64_t wide = std::max<int64_t>(element, sizeof(float));
  const int64_t residual = 3 * width * element;  // block input, its sum with the mixer, the normed input
  // Norm, rotation and filters work in fp32 beside what they read and write.
  const int64_t mixer =
      mixer_ ? 9 * width * element + 9 * width * wide : 8 * width * element + 6 * width * wide;
  const int64_t gated = 3 * inner * element;
  return residual + std::max(mixer, gated);
}

Tensor StripedHyenaBlock::forward(const Tensor& x_BLD, int64_t position, cache::LayerState* state,
                                  AttentionHook* hook) {
  const Tensor u = pre_norm->forward(x_BLD);
  Tensor mixed;
  if (kind_ != BlockKind::attention) {
    auto* carried = dynamic_cast<cache::HyenaLayerState*>(state);
    FOCUS_CHECK(state == nullptr || carried != nullptr, "block ", index_,
                " was handed a state of another kind");
    mixed = out_filter_dense->forward(
        mixer_->forward(projections->forward(u), carried != nullptr ? &carried->tensors : nullptr));
  } else if (hook != nullptr) {
    mixed = hook->mix({*inner_mha_cls, *pre_norm, index_, x_BLD, u, position, state});
  } else {
    mixed = attend(*inner_mha_cls, u, position, state);
  }
  const auto [x, normed] = post_norm->add(x_BLD, mixed);
  return mlp->forward(normed, x);
}

BlockList::BlockList(const ModelConfig& config) {
  for (int64_t i = 0; i < config.num_layers; ++i)
    items.push_back(register_module(std::to_string(i), std::make_shared<StripedHyenaBlock>(config, i)));
}

StripedHyena::StripedHyena(ModelConfig config) : config_(std::move(config)) {
  const int64_t heads = config_.num_heads;
  shape_ = {config_.name, config_.vocab_size,          config_.hidden_size, heads,
            heads,        config_.hidden_size / heads, config_.max_length};
  vocabulary_ = Vocabulary::bytes(config_.vocab_size);
  embedding_layer = register_module("embedding_layer",
                                    std::make_shared<nn::Embedding>(config_.vocab_size, config_.hidden_size));
  blocks = register_module("blocks", std::make_shared<BlockList>(config_));
  if (config_.final_norm)
    norm = register_module("norm", std::make_shared<nn::RmsNorm>(config_.hidden_size, config_.eps));
  blocks_.assign(blocks->items.begin(), blocks->items.end());
}

Tensor StripedHyena::embed(const Tensor& tokens_BL) const {
  return at::embedding(embedding_layer->weight, tokens_BL);
}

Tensor StripedHyena::unembed(const Tensor& hidden_BLD) const {
  return ops::linear(hidden_BLD, embedding_layer->weight, {});
}

std::shared_ptr<Backbone> StripedHyena::twin() const {
  const nn::DeferAllocation no_memory;
  auto out = std::make_shared<StripedHyena>(config_);
  out->alias(*this);
  return out;
}

at::ScalarType StripedHyena::dtype_of_parameter(const std::string& name, at::ScalarType compute) const {
  const bool filter_modes = name.ends_with("log_poles") || name.ends_with("residues");
  return filter_modes && compute != at::kDouble ? at::kFloat : compute;
}

}  // namespace focus::model
