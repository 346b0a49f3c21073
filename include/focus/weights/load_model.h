// From a configuration and a file of weights to a model, and back to a file.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "focus/formats/tensor_file.h"
#include "focus/model/striped_hyena.h"

namespace focus::weights {

/// What to do with a model whose Hyena input projections were trained and are run in FP8.
enum class Fp8 {
  emulate,  // round as FP8 hardware does, with the checkpoint's scales
  off       // compute them like all other layers: other numbers than the published ones
};

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;  // what the model computes in
  Fp8 fp8 = Fp8::emulate;
  /// false: parameters that need no conversion are views of the file's mapping, which then lives as long as
  /// they do. Only for models that are never written to: their pages are read-only.
  bool writable = true;
  /// Where each block goes (Backbone::place); empty: all stay on the CPU.
  std::function<std::vector<at::Device>(const model::Backbone&)> placement = {};
};

struct LoadReport {
  std::vector<std::string>
      ignored;  // entries that compute nothing: unembed.weight (tied), filter.t, _extra_state
};

/// Fills the model's parameters from the file, strictly: every missing, unexpected or misshapen tensor is
/// listed in one WeightsError. As in the reference, each weight but poles, residues and rotary frequencies is
/// rounded to bf16, whatever the file holds.
LoadReport load_weights(model::StripedHyena& model, const std::shared_ptr<formats::TensorFile>& file,
                        const LoadOptions& options);

/// Opens the file and fills the model from it; errors name the file.
std::shared_ptr<formats::TensorFile> load_weights_file(model::StripedHyena& model,
                                                       const std::filesystem::path& path,
                                                       const LoadOptions& options);

/// Writes the model in Evo-2's names: weights in bf16, norm scales, poles, residues and rotary frequencies in
/// fp32. `.pt` or `.safetensors` by the path's extension.
void save_weights(const model::StripedHyena& model, const std::filesystem::path& path);

struct LoadedModel {
  std::shared_ptr<model::Backbone> model;
  std::string digest;     // identifies the checkpoint, see formats::fingerprint()
  std::string precision;  // "fp32", "bf16", and how FP8 projections are computed: for every output
};
/// Config + checkpoint -> frozen model on a device in a dtype. A config.json, or a folder that holds one,
/// means a Hugging Face model (LlamaConfig), whose tokenizer files are read from the same folder; any other
/// file is Evo-2's YAML. An empty path takes the config.json of the checkpoint's folder. On the CPU weights
/// that need no conversion stay where they are, in the mapped file: a large checkpoint opens at once and is
/// read from disk as it is used. With `own_memory` they are copied, into huge pages where the system has
/// them, which decoding reads faster. `device` may name several (model::parse_placement).
LoadedModel load_model(const std::string& config_path, const std::string& checkpoint_path,
                       at::ScalarType dtype, const std::string& device, Fp8 fp8 = Fp8::emulate,
                       bool own_memory = false);
/// The same with random_weights.h's numbers, the same for the same seed, in place of a checkpoint. Not
/// `writable`, and on the CPU: matrices are windows onto one pool, far smaller than the model.
LoadedModel random_model(const std::string& config_path, uint64_t seed, LoadOptions options,
                         const std::string& device);

}  // namespace focus::weights
