#include "focus/model/config.h"

#include <yaml-cpp/yaml.h>

#include <functional>
#include <map>
#include <set>

#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::model {
namespace {

// Keys of Evo-2's configs that steer the reference's own run time (kernels, parallelism, logging) and change no number.
const std::set<std::string> kWithoutEffect = {
    "mlp_init_method", "mlp_output_init_method", "make_vocab_size_divisible_by", "log_intermediate_values", "model_parallel_size",
    "pipe_parallel_size", "max_batch_size", "use_flash_attn", "use_flash_rmsnorm", "use_flash_depthwise", "use_flashfft",
    "use_laughing_hyena", "inference_mode", "tokenizer_type", "prefill_style", "print_activations",
    // The reference never reads these: hcl always has one filter per channel.
    "hcl_filter_groups", "hyena_filter_groups", "num_filters", "proj_groups"};

class Reader {
 public:
  Reader(const std::string& yaml, std::string source) : source_(std::move(source)) {
    try {
      root_ = YAML::Load(yaml);
    } catch (const YAML::Exception& e) {
      fail<ConfigError>(source_, ":", e.mark.line + 1, ":", e.mark.column + 1, ": not valid YAML: ", e.msg);
    }
    if (!root_.IsMap()) fail<ConfigError>(source_, ": expected a YAML mapping of model settings");
    for (const auto& item : root_) {
      const auto key = item.first.as<std::string>();
      if (!keys_.insert(key).second) fail<ConfigError>(source_, ":", item.first.Mark().line + 1, ": key '", key, "' appears twice");
    }
  }

  bool has(const std::string& key) const { return keys_.contains(key); }

  template <class T>
  T get(const std::string& key) {
    if (!has(key)) fail<ConfigError>(source_, ": required key '", key, "' is missing");
    used_.insert(key);
    const YAML::Node node = root_[key];
    try {
      return node.as<T>();
    } catch (const YAML::Exception&) {
      fail<ConfigError>(source_, ":", node.Mark().line + 1, ": key '", key, "' has the wrong type");
    }
  }
  template <class T>
  T get(const std::string& key, T fallback) {
    return has(key) ? get<T>(key) : fallback;
  }
  int64_t positive(const std::string& key, int64_t fallback = 0) {
    const int64_t value = fallback > 0 ? get<int64_t>(key, fallback) : get<int64_t>(key);
    if (value < 1) fail<ConfigError>(source_, ": key '", key, "' must be at least 1, got ", value);
    return value;
  }
  template <class T>
  void require(const std::string& key, const T& supported, const char* why) {
    if (has(key) && get<T>(key) != supported)
      fail<ConfigError>(source_, ": key '", key, "': only ", YAML::Dump(YAML::Node(supported)), " is supported: ", why);
  }
  void finish() const {
    for (const auto& key : keys_) {
      if (!used_.contains(key) && !kWithoutEffect.contains(key))
        fail<ConfigError>(source_, ": unknown key '", key, "'; remove it, or this focus is too old for this model");
    }
  }
  const std::string& source() const { return source_; }

 private:
  std::string source_;
  YAML::Node root_;
  std::set<std::string> keys_, used_;
};

void place(Reader& in, const std::string& key, BlockKind kind, ModelConfig& config, std::vector<bool>& taken) {
  for (const int64_t index : in.get<std::vector<int64_t>>(key, {})) {
    if (index < 0 || index >= config.num_layers)
      fail<ConfigError>(in.source(), ": key '", key, "': layer ", index, " is outside 0..", config.num_layers - 1);
    const auto i = static_cast<std::size_t>(index);
    if (taken[i]) fail<ConfigError>(in.source(), ": key '", key, "': layer ", index, " already has another kind");
    taken[i] = true;
    config.blocks[i] = kind;
  }
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
  Reader in(yaml, source);
  ModelConfig c;
  c.name = in.get<std::string>("model_name", "unnamed");
  c.vocab_size = in.positive("vocab_size");
  c.hidden_size = in.positive("hidden_size");
  c.num_layers = in.positive("num_layers");
  c.num_heads = in.positive("num_attention_heads");
  c.input_taps = in.positive("short_filter_length", 3);
  c.hcs_taps = in.positive("hcs_filter_length", 7);
  c.hcm_taps = in.positive("hcm_filter_length", 128);
  c.hcs_groups = in.positive("hcs_filter_groups", c.hidden_size);
  c.hcm_groups = in.positive("hcm_filter_groups", c.hidden_size);
  c.state_size = in.positive("state_size", 16);
  c.eps = in.get<double>("eps", 1e-6);
  c.max_length = in.positive("max_seqlen", 1 << 20);
  c.rotary_base = in.get<double>("rotary_emb_base", 10000.0);
  if (!(c.rotary_base > 1.0) || !(c.eps >= 0.0)) fail<ConfigError>(source, ": need rotary_emb_base > 1 and eps >= 0");
  const double scaling = in.get<double>("rotary_emb_scaling_factor", 1.0);
  const bool interpolated = in.get<bool>("use_interpolated_rotary_pos_emb", false);
  if (!(scaling > 0.0)) fail<ConfigError>(source, ": rotary_emb_scaling_factor must be positive, got ", scaling);
  if (!interpolated && scaling != 1.0)
    fail<ConfigError>(source, ": rotary_emb_scaling_factor has no effect unless use_interpolated_rotary_pos_emb is True");
  c.rotary_scaling = interpolated ? scaling : 1.0;

  const int64_t multiple = in.positive("inner_size_multiple_of", 64);
  c.inner_mlp_size =
      in.has("inner_mlp_size") ? in.positive("inner_mlp_size") : (8 * c.hidden_size / 3 + multiple - 1) / multiple * multiple;
  c.column_split = in.get<bool>("column_split", true);
  c.attention_out_bias = in.get<bool>("mha_out_proj_bias", true);
  c.hyena_out_bias = in.get<bool>("hyena_out_proj_bias", true);
  c.qkv_bias = in.get<bool>("qkv_proj_bias", false);
  c.final_norm = in.get<bool>("final_norm", true);
  c.evo2_activations = in.get<bool>("evo2_style_activations", false);
  in.require<std::string>("mlp_activation", "gelu", "no released model uses another");
  in.require<bool>("interleave", true, "Evo-2's interleaved Hyena channels are the only layout read here");
  in.require<bool>("column_split_hyena", false, "no released Evo-2 model splits its Hyena channels by head");
  in.require<bool>("hyena_flip_x1x2", false, "no released Evo-2 model flips its gates");
  in.require<bool>("short_filter_bias", false, "no released Evo-2 model has it");
  in.require<bool>("tie_embeddings", true, "the unembedding is the embedding matrix");
  in.require<bool>("use_fp8_input_projections", false,
                   "FP8 input projections are not emulated here, and leaving them out would give wrong numbers");

  c.blocks.assign(static_cast<std::size_t>(c.num_layers), BlockKind::hcs);
  std::vector<bool> taken(static_cast<std::size_t>(c.num_layers), false);
  place(in, "hcs_layer_idxs", BlockKind::hcs, c, taken);
  place(in, "hcm_layer_idxs", BlockKind::hcm, c, taken);
  place(in, "hcl_layer_idxs", BlockKind::hcl, c, taken);
  place(in, "attn_layer_idxs", BlockKind::attention, c, taken);
  for (std::size_t i = 0; i < taken.size(); ++i) {
    if (!taken[i])
      fail<ConfigError>(source, ": layer ", i, " is in none of hcs_layer_idxs, hcm_layer_idxs, hcl_layer_idxs, attn_layer_idxs");
  }
  if (c.hidden_size % c.num_heads != 0 || c.hidden_size / c.num_heads % 2 != 0)
    fail<ConfigError>(source, ": hidden_size ", c.hidden_size, " must split into ", c.num_heads, " attention heads of an even dimension");
  if (c.hidden_size % c.hcs_groups != 0 || c.hidden_size % c.hcm_groups != 0)
    fail<ConfigError>(source, ": filter groups must divide hidden_size ", c.hidden_size);
  in.finish();
  return c;
}

}  // namespace focus::model
