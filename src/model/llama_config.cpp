#include "focus/model/llama_config.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/json_depth.h"

namespace focus::model {
namespace {

using Json = nlohmann::json;

// Keys that steer training, generation, logging or file handling and change no logit.
const std::set<std::string> kWithoutEffect = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range",
    "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id",
    "decoder_start_token_id", "return_dict", "output_attentions", "output_hidden_states", "torchscript",
    "problem_type", "id2label", "label2id", "finetuning_task", "tokenizer_class", "is_decoder",
    "chunk_size_feed_forward", "gradient_checkpointing",
    // Sampling defaults of old files.
    "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "num_beams",
    "repetition_penalty",
    // Which fused kernel the reference takes.
    "_attn_implementation", "attn_implementation", "_flash_attn_2_enabled",
    // Only read by the reference where sliding windows are on, which is refused.
    "max_window_layers"};

/// One JSON object of settings.
class Reader {
 public:
  Reader(const Json& node, std::string where) : node_(node), where_(std::move(where)) {
    if (!node_.is_object()) fail<ConfigError>(where_, ": expected an object of model settings");
  }

  /// Whether the key is there with a value; null is as good as absent.
  bool has(const std::string& key) {
    if (!node_.contains(key)) return false;
    used_.insert(key);
    return !node_.at(key).is_null();
  }
  const Json& at(const std::string& key) {
    if (!has(key)) fail<ConfigError>(where_, ": required key '", key, "' is missing");
    return node_.at(key);
  }
  int64_t positive(const std::string& key) {
    const Json& value = at(key);
    if (!value.is_number_integer() || value.get<int64_t>() < 1) wrong(key, "a whole number of at least 1");
    return value.get<int64_t>();
  }
  int64_t positive(const std::string& key, int64_t fallback) { return has(key) ? positive(key) : fallback; }
  double number(const std::string& key) {
    const Json& value = at(key);
    if (!value.is_number() || !(value.get<double>() > 0)) wrong(key, "a number greater than 0");
    return value.get<double>();
  }
  double number(const std::string& key, double fallback) { return has(key) ? number(key) : fallback; }
  bool boolean(const std::string& key, bool fallback) {
    if (!has(key)) return fallback;
    if (!at(key).is_boolean()) wrong(key, "true or false");
    return at(key).get<bool>();
  }
  std::string text(const std::string& key) {
    if (!at(key).is_string()) wrong(key, "a text");
    return at(key).get<std::string>();
  }
  template <class T>
  void require(const std::string& key, const T& supported, const char* why) {
    if (has(key) && at(key) != Json(supported))
      fail<ConfigError>(where_, ": key '", key, "' is ", at(key).dump(), ", and only ",
                        Json(supported).dump(), " is supported: ", why);
  }
  void refuse(const std::string& key, const char* why) {
    if (has(key)) fail<ConfigError>(where_, ": key '", key, "' is not supported: ", why);
  }
  void finish(const std::set<std::string>& without_effect = {}) const {
    for (const auto& item : node_.items()) {
      if (!used_.contains(item.key()) && !without_effect.contains(item.key()))
        fail<ConfigError>(where_, ": unknown key '", item.key(),
                          "'; remove it, or this focus is too old for this model");
    }
  }
  [[noreturn]] void wrong(const std::string& key, const char* expected) const {
    fail<ConfigError>(where_, ": key '", key, "' must be ", expected, ", got ", node_.at(key).dump());
  }
  const std::string& where() const { return where_; }

 private:
  const Json& node_;
  std::string where_;
  std::set<std::string> used_;
};

Json parse_strictly(const std::string& text, const std::string& source) {
  std::vector<std::set<std::string>> open;
  std::string repeated;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    DepthWatch<ConfigError>{source}(depth, event, value);
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second)
      repeated = value.get<std::string>();
    return true;
  };
  try {
    Json out = Json::parse(text, watch);
    if (!repeated.empty()) fail<ConfigError>(source, ": key '", repeated, "' appears twice");
    return out;
  } catch (const Json::exception& e) {
    fail<ConfigError>(source, ": not valid JSON: ", e.what());
  }
}

/// Base and scaling of the rotary frequencies. They stand at the top ("rope_theta", "rope_scaling") or, since
/// version 5 of the reference, together under "rope_parameters".
void read_rotary(Reader& in, LlamaConfig& c) {
  c.rotary_base = in.number("rope_theta", c.rotary_base);
  in.require<double>("partial_rotary_factor", 1.0, "every channel of a head is rotated");
  if (in.has("rope_scaling") && in.has("rope_parameters"))
    fail<ConfigError>(in.where(), ": keys 'rope_scaling' and 'rope_parameters' say the same thing; keep one");
  const std::string key = in.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!in.has(key)) return;
  Reader rope(in.at(key), concat(in.where(), ": key '", key, "'"));
  const bool given = in.has("rope_theta");
  const double base = rope.number("rope_theta", c.rotary_base);
  if (given && base != c.rotary_base)
    fail<ConfigError>(in.where(), ": two different values of rope_theta, ", c.rotary_base, " and ", base);
  c.rotary_base = base;
  rope.require<double>("partial_rotary_factor", 1.0, "every channel of a head is rotated");
  if (rope.has("type") && rope.has("rope_type") && rope.text("type") != rope.text("rope_type"))
    fail<ConfigError>(rope.where(), ": 'type' and 'rope_type' contradict each other");
  const std::string kind = rope.has("rope_type") ? rope.text("rope_type")
                           : rope.has("type")    ? rope.text("type")
                                                 : "default";
  if (kind == "linear") {
    c.rotary_scaling = RotaryScaling::linear;
    c.rotary_factor = rope.number("factor");
  } else if (kind == "llama3") {
    c.rotary_scaling = RotaryScaling::llama3;
    c.rotary_factor = rope.number("factor");
    c.low_frequency_factor = rope.number("low_freq_factor");
    c.high_frequency_factor = rope.number("high_freq_factor");
    c.original_length = rope.positive("original_max_position_embeddings");
    if (c.high_frequency_factor <= c.low_frequency_factor)
      fail<ConfigError>(rope.where(), ": high_freq_factor must be greater than low_freq_factor");
  } else if (kind != "default") {
    fail<ConfigError>(rope.where(), ": rotary scaling '", kind,
                      "' is not supported; known: default, linear, llama3");
  }
  rope.finish();
}

/// Attention here sees everything: a window that would hide something is refused.
void refuse_sliding_windows(Reader& in, const std::string& model_type, int64_t max_length) {
  const bool off = model_type == "qwen2" && !in.boolean("use_sliding_window", false);
  if (model_type != "qwen2") in.refuse("use_sliding_window", "only Qwen2 has it");
  if (in.has("sliding_window") && !off && in.positive("sliding_window") < max_length)
    fail<ConfigError>(in.where(), ": key 'sliding_window': a window of ", in.positive("sliding_window"),
                      " within a length of ", max_length,
                      " is not supported: attention here sees every earlier token");
  if (model_type == "qwen2" && !off)
    fail<ConfigError>(in.where(), ": key 'use_sliding_window': sliding windows are not supported");
  if (!in.has("layer_types")) return;
  for (const Json& kind : in.at("layer_types")) {
    if (kind != "full_attention" && kind != "sliding_attention")
      in.wrong("layer_types", "full_attention throughout");
    // A window no shorter than the length hides nothing.
    if (kind == "sliding_attention" && (off || !in.has("sliding_window")))
      in.wrong("layer_types", "full_attention throughout");
  }
}

}  // namespace

LlamaConfig read_llama_config(const std::filesystem::path& path) {
  try {
    LlamaConfig config = parse_llama_config(read_file(path), path.string());
    config.name = std::filesystem::absolute(path).lexically_normal().parent_path().filename().string();
    return config;
  } catch (const DataError& e) {
    fail<ConfigError>("model config: ", e.what());
  }
}

LlamaConfig parse_llama_config(const std::string& json, const std::string& source) {
  const Json root = parse_strictly(json, source);
  Reader in(root, source);
  LlamaConfig c;
  const std::map<std::string, std::string> known = {
      {"LlamaForCausalLM", "llama"}, {"MistralForCausalLM", "mistral"}, {"Qwen2ForCausalLM", "qwen2"}};
  const Json& architectures = in.at("architectures");
  if (!architectures.is_array() || architectures.size() != 1 || !architectures[0].is_string())
    in.wrong("architectures", "a list of one name");
  c.architecture = c.name = architectures[0].get<std::string>();
  const auto found = known.find(c.architecture);
  if (found == known.end())
    fail<ConfigError>(source, ": architecture '", c.architecture,
                      "' is not supported; known: LlamaForCausalLM, MistralForCausalLM, ",
                      "Qwen2ForCausalLM, and StripedHyena 2 by its YAML file");
  const std::string model_type = found->second;
  in.require<std::string>("model_type", model_type, "it belongs to the architecture");
  in.refuse("auto_map", "the model brings code of its own, which is not run");
  in.refuse("quantization_config", "quantised weights are not read");

  c.vocab_size = in.positive("vocab_size");
  c.hidden_size = in.positive("hidden_size");
  c.inner_size = in.positive("intermediate_size");
  c.num_layers = in.positive("num_hidden_layers");
  c.num_heads = in.positive("num_attention_heads");
  // Files of the first Llama have no such key; the other two have defaults that follow from nothing else in
  // the file.
  c.num_kv_heads = model_type == "llama" ? in.positive("num_key_value_heads", c.num_heads)
                                         : in.positive("num_key_value_heads");
  c.max_length = in.positive("max_position_embeddings");
  c.eps = in.number("rms_norm_eps", 1e-6);
  if (c.num_heads % c.num_kv_heads != 0)
    fail<ConfigError>(source, ": num_attention_heads ", c.num_heads,
                      " must be a multiple of num_key_value_heads ", c.num_kv_heads);
  if (!in.has("head_dim") && c.hidden_size % c.num_heads != 0)
    fail<ConfigError>(source, ": hidden_size ", c.hidden_size, " does not split into ", c.num_heads,
                      " heads; head_dim is needed");
  c.head_dim = in.positive("head_dim", c.hidden_size / c.num_heads);
  if (c.head_dim % 2 != 0)
    fail<ConfigError>(source, ": heads of ", c.head_dim, " channels: rotary positions need an even number");
  read_rotary(in, c);

  if (model_type == "llama") {
    c.qkv_bias = c.out_bias = in.boolean("attention_bias", false);
    c.mlp_bias = in.boolean("mlp_bias", false);
  } else {
    c.qkv_bias = model_type == "qwen2";
    in.require<bool>("attention_bias", c.qkv_bias, "the architecture fixes it");
    in.require<bool>("mlp_bias", false, "the architecture has none");
  }
  c.tied = in.boolean("tie_word_embeddings", false);
  refuse_sliding_windows(in, model_type, c.max_length);
  in.require<std::string>("hidden_act", "silu", "no model of these architectures was released with another");
  in.require<int64_t>("pretraining_tp", 1, "it would only change the order of sums");
  in.require<bool>("is_encoder_decoder", false, "decoders alone are read");
  in.require<bool>("add_cross_attention", false, "decoders alone are read");
  in.require<Json>("pruned_heads", Json::object(), "pruned attention heads are not read");
  in.finish(kWithoutEffect);
  return c;
}

}  // namespace focus::model
