// The shape of a plain decoder-only transformer, read from a Hugging Face config.json. Every key is known:
// one that computes something is read, one that only steers training, generation or file handling is listed
// as having no effect, any other key and any unsupported value is an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace focus::model {

enum class RotaryScaling { none, linear, llama3 };

/// LlamaForCausalLM, MistralForCausalLM or Qwen2ForCausalLM: they differ in biases and in the defaults of
/// their files alone.
struct LlamaConfig {
  std::string name;          // the folder's
  std::string architecture;  // as in the file
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t inner_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 1, num_kv_heads = 1, head_dim = 0;
  double eps = 1e-6;
  int64_t max_length =
      0;  // max_position_embeddings: what the model was trained for; longer input is computed all the same
  double rotary_base = 10000.0;
  RotaryScaling rotary_scaling = RotaryScaling::none;
  double rotary_factor = 1.0;                                      // linear, llama3
  double low_frequency_factor = 1.0, high_frequency_factor = 4.0;  // llama3
  int64_t original_length = 0;                                     // llama3
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool tied = false;  // the unembedding is the embedding matrix
};

/// Throws ConfigError: missing file, syntax, repeated, unknown or missing key, wrong type, inconsistent or
/// unsupported value.
LlamaConfig read_llama_config(const std::filesystem::path& path);
LlamaConfig parse_llama_config(const std::string& json, const std::string& source);

}  // namespace focus::model
