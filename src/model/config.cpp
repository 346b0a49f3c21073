#include "focus/model/config.h"

#include <cmath>

#include "focus/core/file.h"
#include "yaml_reader.h"

namespace focus::model {
namespace {

// Keys that change no number, whatever their value: how the reference fills weights that a checkpoint
// replaces, spreads work over devices and picks its attention kernel. The vocabulary is never padded; the
// batch is any.
const std::set<std::string> kWithoutEffect = {
    "mlp_init_method",    "mlp_output_init_method", "make_vocab_size_divisible_by",
    "pipe_parallel_size", "max_batch_size",         "inference_mode",
    "use_flash_attn"};

constexpr int64_t kMaxWidth = 1 << 20, kMaxLayers = 4096, kMaxTaps = 1 << 20, kMaxLength = int64_t{1} << 40;

void place(YamlReader& in, const std::string& key, BlockKind kind, ModelConfig& config,
           std::vector<bool>& taken) {
  for (const int64_t index : in.get<std::vector<int64_t>>(key, {})) {
    if (index < 0 || index >= config.num_layers)
      in.wrong(key, "layer ", index, " does not exist; num_layers allows 0..", config.num_layers - 1);
    const auto i = static_cast<std::size_t>(index);
    if (taken[i]) in.wrong(key, "layer ", index, " is listed already, as ", name_of(config.blocks[i]));
    taken[i] = true;
    config.blocks[i] = kind;
  }
}

void place_all(YamlReader& in, ModelConfig& c) {
  c.blocks.assign(static_cast<std::size_t>(c.num_layers), BlockKind::hcs);
  std::vector<bool> taken(static_cast<std::size_t>(c.num_layers), false);
  place(in, "hcs_layer_idxs", BlockKind::hcs, c, taken);
  place(in, "hcm_layer_idxs", BlockKind::hcm, c, taken);
  place(in, "hcl_layer_idxs", BlockKind::hcl, c, taken);
  place(in, "attn_layer_idxs", BlockKind::attention, c, taken);
  for (std::size_t i = 0; i < taken.size(); ++i) {
    if (!taken[i])
      in.wrong("num_layers", "layer ", i,
               " is in none of hcs_layer_idxs, hcm_layer_idxs, hcl_layer_idxs, attn_layer_idxs");
  }
}

int64_t filter_groups(YamlReader& in, const std::string& key, int64_t width) {
  const int64_t groups = in.count(key, width, width);
  if (width % groups != 0) in.wrong(key, "hidden_size ", width, " is no multiple of ", groups);
  return groups;
}

void read_rotary(YamlReader& in, ModelConfig& c) {
  const std::string base = "rotary_emb_base", factor = "rotary_emb_scaling_factor";
  c.rotary_base =
      in.get<double>(base);  // the reference assumes 1e6 where it is missing, most of its configs say 1e4
  if (!(c.rotary_base > 1.0) || !std::isfinite(c.rotary_base))
    in.wrong(base, "must be a number above 1, got ", in.written(base));
  const bool interpolated = in.get<bool>("use_interpolated_rotary_pos_emb", false);
  const double scaling = in.get<double>(factor, 1.0);
  if (!(scaling > 0.0) || !std::isfinite(scaling))
    in.wrong(factor, "must be a positive number, got ", in.written(factor));
  if (!interpolated && scaling != 1.0)
    in.wrong(factor, "has no effect unless use_interpolated_rotary_pos_emb is True");
  c.rotary_scaling = interpolated ? scaling : 1.0;
  if (c.hidden_size % c.num_heads != 0 || c.hidden_size / c.num_heads % 2 != 0)
    in.wrong("num_attention_heads", "hidden_size ", c.hidden_size, " must split into ", c.num_heads,
             " heads of an even dimension");
}

void read_mlp(YamlReader& in, ModelConfig& c) {
  // Without inner_mlp_size: 8/3 of the width, rounded up.
  const int64_t multiple =
      in.count("inner_size_multiple_of", kMaxWidth, 64) * in.count("model_parallel_size", kMaxWidth, 1);
  const int64_t derived = (8 * c.hidden_size / 3 + multiple - 1) / multiple * multiple;
  c.inner_mlp_size = in.count("inner_mlp_size", 16 * kMaxWidth, derived);
  c.evo2_activations = in.get<bool>("evo2_style_activations", false);
  in.only<std::string>("mlp_activation", "gelu", "no released model uses another");
}

void refuse_other_models(YamlReader& in, const ModelConfig& c) {
  in.only_and_required("interleave", true, "the Hyena channels of the Evo-2 weights are interleaved");
  in.only_and_required("column_split_hyena", false,
                       "no released Evo-2 model splits its Hyena channels by head");
  in.only_and_required("tie_embeddings", true, "the unembedding is the embedding matrix");
  in.only_and_required("qkv_proj_bias", false, "it would put a bias into the Hyena input projections, too");
  in.only("hyena_flip_x1x2", false, "no released Evo-2 model exchanges its gates");
  in.only("short_filter_bias", false, "no released Evo-2 model has it");
  in.only("proj_groups", int64_t{1}, "attention heads that share keys and values are not implemented");
  in.only("num_filters", c.hidden_size, "Hyena blocks filter every channel of hidden_size");
  in.only("hcl_filter_groups", c.hidden_size,
          "long filters are never shared, every channel of hidden_size has its own");
  in.only("hyena_filter_groups", int64_t{1}, "groups are set by hcs_filter_groups and hcm_filter_groups");
}

// Other kernels of the reference that round otherwise or compute something else, and services that focus does
// not offer.
void refuse_other_run_times(YamlReader& in) {
  in.only("use_flash_rmsnorm", false, "that kernel puts eps inside the root");
  in.only("use_flash_depthwise", false, "that kernel rounds otherwise");
  in.only("use_flashfft", false, "that kernel convolves in bf16");
  in.only("use_laughing_hyena", false, "the reference never reads it and focus distils no filters");
  in.only<std::string>(
      "prefill_style", "fft",
      "the reference's other styles fail on these models; focus scans in chunks, with the same result");
  in.only<std::string>("tokenizer_type", "CharLevelTokenizer", "focus reads one byte as one token");
  in.only("print_activations", false, "focus logs no activations");
  in.only("log_intermediate_values", false, "focus logs no activations");
}

}  // namespace

const char* name_of(BlockKind kind) {
  switch (kind) {
    case BlockKind::hcs:
      return "hcs";
    case BlockKind::hcm:
      return "hcm";
    case BlockKind::hcl:
      return "hcl";
    case BlockKind::attention:
      return "attention";
  }
  return "?";
}

ModelConfig read_model_config(const std::string& path) {
  try {
    return parse_model_config(read_file(path), path);
  } catch (const DataError& e) {
    fail<ConfigError>("model config: ", e.what());
  }
}

ModelConfig parse_model_config(const std::string& yaml, const std::string& source) {
  YamlReader in(yaml, source);
  ModelConfig c;
  c.name = in.get<std::string>("model_name", "unnamed");
  c.vocab_size = in.count("vocab_size", kMaxWidth);
  c.hidden_size = in.count("hidden_size", kMaxWidth);
  c.num_layers = in.count("num_layers", kMaxLayers);
  c.num_heads = in.count("num_attention_heads", kMaxWidth);
  c.input_taps = in.count("short_filter_length", kMaxTaps, 3);
  c.hcs_taps = in.count("hcs_filter_length", kMaxTaps, 7);
  c.hcm_taps = in.count("hcm_filter_length", kMaxTaps, 128);
  c.hcs_groups = filter_groups(in, "hcs_filter_groups", c.hidden_size);
  c.hcm_groups = filter_groups(in, "hcm_filter_groups", c.hidden_size);
  c.state_size = in.count("state_size", kMaxTaps, 16);
  c.eps = in.get<double>("eps", 1e-6);
  if (!(c.eps >= 0.0) || !std::isfinite(c.eps))
    in.wrong("eps", "must be a number of at least 0, got ", in.written("eps"));
  c.max_length = in.count("max_seqlen", kMaxLength, 8192);
  c.column_split = in.get<bool>("column_split", true);
  c.attention_out_bias = in.get<bool>("mha_out_proj_bias", true);
  c.hyena_out_bias = in.get<bool>(
      "hyena_out_proj_bias");  // where it is missing the reference has no bias here, but one in attention
  c.final_norm = in.get<bool>("final_norm", true);
  c.fp8_input_projections = in.get<bool>("use_fp8_input_projections", false);
  read_rotary(in, c);
  read_mlp(in, c);
  refuse_other_models(in, c);
  refuse_other_run_times(in);
  place_all(in, c);
  in.finish(kWithoutEffect);
  return c;
}

}  // namespace focus::model
