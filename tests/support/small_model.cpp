#include "support/small_model.h"

#include "focus/core/file.h"
#include "focus/model/initialise.h"
#include "focus/weights/load_model.h"

namespace focus::testing {

using at::Tensor;

std::shared_ptr<model::StripedHyena> small_model(at::ScalarType dtype) {
  model::ModelConfig config;
  config.name = "small";
  config.vocab_size = 128;
  config.hidden_size = 16;
  config.num_layers = 5;
  config.blocks = {model::BlockKind::hcs, model::BlockKind::hcm, model::BlockKind::attention,
                   model::BlockKind::hcl, model::BlockKind::attention};
  config.num_heads = 2;
  config.inner_mlp_size = 24;
  config.hcm_taps = 16;
  config.state_size = 4;
  config.hcs_groups = config.hcm_groups = 8;
  config.rotary_scaling = 4.0;
  auto out = std::make_shared<model::StripedHyena>(config);
  model::InitConfig init;
  init.seed = 7;
  init.nucleotide_gap = 0;
  init.final_norm_scale = 1.0;
  model::initialise(*out, init);
  out->cast(dtype);
  out->set_trainable(false);
  return out;
}

void write_small_model(const std::filesystem::path& folder) {
  write_file(folder / "small.yml", R"(model_name: small
vocab_size: 128
hidden_size: 16
num_layers: 5
hcs_layer_idxs: [0]
hcm_layer_idxs: [1]
hcl_layer_idxs: [3]
attn_layer_idxs: [2, 4]
hcs_filter_groups: 8
hcm_filter_length: 16
hcm_filter_groups: 8
state_size: 4
num_attention_heads: 2
inner_mlp_size: 24
rotary_emb_base: 10000
interleave: True
column_split_hyena: False
hyena_out_proj_bias: True
qkv_proj_bias: False
tie_embeddings: True
use_interpolated_rotary_pos_emb: True
rotary_emb_scaling_factor: 4
evo2_style_activations: True
)");
  weights::save_weights(*small_model(at::kFloat), folder / "small.pt");
}

std::shared_ptr<model::Llama> small_llama(at::ScalarType dtype) {
  model::LlamaConfig config;
  config.name = "small-llama";
  config.vocab_size = 128;
  config.hidden_size = 16;
  config.inner_size = 24;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.qkv_bias = true;
  auto out = std::make_shared<model::Llama>(config, model::Vocabulary::bytes(config.vocab_size));
  at::NoGradGuard guard;
  at::manual_seed(7);
  for (const auto& item : out->named_parameters()) {
    Tensor parameter = item.value();
    const double std = parameter.dim() == 2 ? 1.0 / std::sqrt(static_cast<double>(parameter.size(1))) : 0.1;
    const double mean = item.key().find("norm") != std::string::npos ? 1.0 : 0.0;
    parameter.normal_(mean, item.key().find("embed") != std::string::npos ? 1.0 : std);
  }
  out->cast(dtype);
  out->set_trainable(false);
  return out;
}

Tensor random_bases(int64_t batch, int64_t length, int64_t seed) {
  at::manual_seed(static_cast<uint64_t>(seed));
  const Tensor letters = at::tensor({int64_t{'A'}, int64_t{'C'}, int64_t{'G'}, int64_t{'T'}});
  return letters.index({at::randint(0, 4, {batch, length}, at::kLong)});
}

void perturb(compress::FocusAdapter& adapter, double size, int64_t seed) {
  at::NoGradGuard guard;
  at::manual_seed(static_cast<uint64_t>(seed));
  for (auto& parameter : adapter.parameters())
    parameter.add_(at::randn(parameter.sizes(), parameter.options()) * size);
}

std::shared_ptr<compress::FocusAdapter> perturbed_adapter(const model::Backbone& backbone,
                                                          const compress::MemoryConfig& config,
                                                          int64_t seed) {
  auto adapter = std::make_shared<compress::FocusAdapter>(backbone, config, seed);
  if (backbone.dtype() == at::kDouble) {
    at::NoGradGuard guard;
    for (auto& parameter : adapter->parameters()) parameter.set_data(parameter.to(at::kDouble));
  }
  perturb(*adapter, 0.1, seed + 1);
  return adapter;
}

}  // namespace focus::testing
