// What kind of model a file of tensors belongs to, read off names and shapes alone. No torch type appears
// here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "focus/formats/tensor_file.h"
#include "focus/model/config.h"

namespace focus::weights {

/// evo2: StripedHyena 2 in Evo-2's names; llama: a Transformer in the names that Hugging Face gives Llama and
/// its relatives.
enum class ModelKind { evo2, llama, focus_adapter, unknown };
const char* name_of(ModelKind kind);

/// Zero, or empty, where the file does not tell.
struct ModelShape {
  ModelKind kind = ModelKind::unknown;
  int64_t vocab_size = 0, hidden_size = 0, num_layers = 0, inner_mlp_size = 0;
  int64_t num_heads = 0, num_key_value_heads = 0,
          head_dim = 0;  // evo2: from the number of rotary frequencies
  int64_t num_parameters =
      0;                   // numbers in all tensors but the rotary frequencies and those that compute nothing
  double rotary_base = 0;  // from the values of the rotary frequencies
  bool own_unembedding = false;  // an output matrix beside the embedding is in the file
  // evo2: one name of BlockKind per layer, "?" for a block that is none of them; and the sizes of its
  // filters.
  std::vector<std::string> blocks;
  int64_t input_taps = 0, hcs_groups = 0, hcs_taps = 0, hcm_groups = 0, hcm_taps = 0, state_size = 0;
};
ModelShape guess_shape(const formats::TensorFile& file);

/// One line for each tensor that differs from what the configuration asks for: missing, unexpected, of
/// another shape, or rotary frequencies of another base. Empty where it fits. Entries that compute nothing
/// may be there or not.
std::vector<std::string> mismatches(const formats::TensorFile& file, const model::ModelConfig& config);

/// Poles, residues and rotary frequencies, which the reference never rounds to bf16.
bool keeps_fp32(const std::string& name);
/// Entries of published checkpoints that no result depends on: the tied unembedding, filter.t, Transformer
/// Engine's state.
bool computes_nothing(const std::string& name);

}  // namespace focus::weights
