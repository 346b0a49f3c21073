// What a StripedHyena of a given shape holds, without building it: names as in Evo-2's checkpoints, shapes,
// stored precision.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "focus/model/config.h"

namespace focus::model {

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  bool fp32 =
      false;  // norm scales, poles, residues and rotary frequencies are stored in fp32, all else in bf16
  bool buffer = false;  // rotary frequencies: read from the checkpoint, but no parameter
  int64_t num_elements() const;
};

/// Every parameter and buffer in the model's own order: embedding, blocks, final norm. The tied unembedding
/// is not among them.
std::vector<ParameterSpec> parameter_list(const ModelConfig& config);

}  // namespace focus::model
