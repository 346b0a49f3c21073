// A StripedHyena 2's shape, read from Evo-2's own YAML. Every key is known: one that computes something is
// read, one that only steers the reference's own machinery is listed as having no effect, any other key and
// any unsupported value is an error. A key may be left out only where the reference assumes what is assumed
// here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace focus::model {

enum class BlockKind { hcs, hcm, hcl, attention };

struct ModelConfig {
  std::string name;
  int64_t vocab_size = 512;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  std::vector<BlockKind> blocks;  // one per layer
  int64_t num_heads = 1;
  int64_t inner_mlp_size = 0;
  int64_t input_taps = 3;  // short_filter_length
  // hcs is a cross-correlation without D, hcm a convolution with D, whatever their lengths. The reference
  // decides that by the length (128 taps and more: hcm); where the two differ its checkpoints lack or have a
  // D, so loading one fails instead of computing otherwise.
  int64_t hcs_taps = 7, hcm_taps = 128;
  int64_t state_size = 16;
  int64_t hcs_groups = 1, hcm_groups = 1;
  double eps = 1e-6;
  double rotary_base = 10000.0;
  double rotary_scaling = 1.0;
  int64_t max_length =
      0;  // max_seqlen: what the model was trained for; longer input is computed all the same
  bool column_split = true;
  bool attention_out_bias = true, hyena_out_bias = true, qkv_bias = false;
  bool final_norm = true;
  bool evo2_activations = true;        // GELU in block 0 only
  bool fp8_input_projections = false;  // Hyena input projections round both factors to FP8
};

/// Reads a YAML file. Throws ConfigError, with the line: missing file, syntax, unknown or missing key, wrong
/// type, inconsistent or unsupported value.
ModelConfig read_model_config(const std::string& path);
ModelConfig parse_model_config(const std::string& yaml, const std::string& source);

const char* name_of(BlockKind kind);

}  // namespace focus::model
