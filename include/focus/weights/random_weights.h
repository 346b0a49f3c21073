// A checkpoint of random numbers in Evo-2's names, dtypes and layout, of any shape: to try memory and speed
// before anything is downloaded. No torch type appears here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "focus/formats/tensor_file.h"
#include "focus/model/config.h"

namespace focus::weights {

struct RandomWeightsOptions {
  uint64_t seed = 0;
  formats::DType dtype = formats::DType::bfloat16;  // or float32; norm scales, poles, residues and rotary
                                                    // frequencies are fp32 either way
  std::filesystem::path
      scratch;  // a file that may exist for a moment: only shapes with FP8 input projections need it
};

/// All tensors of the shape, in the model's order. The matrices are windows onto one pool of normal numbers a
/// little larger than the largest of them, no two at the same place, so that a checkpoint needs 1/100 of its
/// size in memory and still has neither equal layers nor shared storages. The spreads keep activations finite
/// and logits of order one at any depth; poles lie as in a trained model. The numbers are the same for the
/// same seed.
class RandomWeights {
 public:
  /// Throws ConfigError for another dtype, or for FP8 input projections without `scratch`. Owns the memory
  /// that its tensors show.
  RandomWeights(const model::ModelConfig& config, const RandomWeightsOptions& options);
  const std::vector<formats::TensorView>& tensors() const { return tensors_; }
  /// For shapes with FP8 input projections: the scales of each, as Transformer Engine stores them.
  const std::vector<formats::OpaqueEntry>& opaque() const { return opaque_; }

 private:
  void add_fp8_state(const model::ModelConfig& config, float weight_amax,
                     const std::filesystem::path& scratch);

  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::vector<formats::TensorView> tensors_;
  std::vector<formats::OpaqueEntry> opaque_;
  std::string fp8_state_;
};

}  // namespace focus::weights
