#include "focus/weights/load_model.h"

#include <map>
#include <tuple>

#include "fill.h"
#include "focus/core/error.h"
#include "focus/formats/digest.h"
#include "focus/formats/fp8_state.h"
#include "focus/formats/safetensors_writer.h"
#include "focus/formats/torch_archive_writer.h"
#include "focus/model/placement.h"
#include "focus/nn/parameter.h"
#include "focus/weights/model_shape.h"
#include "focus/weights/tensor_view.h"
#include "focus/weights/wrapped_names.h"
#include "load_llama.h"

namespace focus::weights {

using at::Tensor;
using formats::TensorFile;
using formats::TensorView;

namespace {

/// Gives each Hyena block's input projection the scales its `_extra_state` holds.
void emulate_fp8(model::StripedHyena& model, const TensorFile& file) {
  std::vector<std::string> without;
  for (std::size_t i = 0; i < model.blocks->items.size(); ++i) {
    auto& block = *model.blocks->items[i];
    if (!block.projections) continue;
    const std::string name = concat("blocks.", i, ".projections._extra_state");
    const auto content = file.opaque(name);
    std::string why = "there is no such entry";
    const auto state = content ? formats::read_fp8_state(*content, name, why) : std::nullopt;
    if (!state || state->scale_fwd.size() < 2) {
      without.push_back(concat(name, " (", state ? "fewer than two scales" : why, ")"));
      continue;
    }
    block.projections->emulate_fp8({state->scale_fwd[0], state->scale_fwd[1]});
  }
  if (without.empty()) return;
  fail<WeightsError>("model config '", model.config().name,
                     "' runs its input projections in FP8, but the checkpoint holds no scales for ",
                     without.size(), " of them, first ", without.front(),
                     "\n  use the publisher's file, or ask for FP8 off (--fp8 off) and get other numbers "
                     "than the published ones");
}

}  // namespace

LoadReport load_weights(model::StripedHyena& model, const std::shared_ptr<TensorFile>& file,
                        const LoadOptions& options) {
  Filling rules;
  rules.computes_nothing = computes_nothing;
  rules.rounded = [](const std::string& name, const Tensor& source) {
    return keeps_fp32(name) ? source : source.to(at::kBFloat16);
  };
  LoadReport report = fill(model, file, options, rules);
  if (model.config().fp8_input_projections && options.fp8 == Fp8::emulate) emulate_fp8(model, *file);
  return report;
}

std::shared_ptr<TensorFile> load_weights_file(model::StripedHyena& model, const std::filesystem::path& path,
                                              const LoadOptions& options) {
  auto file = open_model_file(path);
  try {
    load_weights(model, file, options);
  } catch (const WeightsError& e) {
    fail<WeightsError>("'", path.string(), "': ", e.what());
  }
  return file;
}

void save_weights(const model::StripedHyena& model, const std::filesystem::path& path) {
  std::vector<Tensor> alive;
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : named_tensors(model)) {
    const bool fp32 = keeps_fp32(name) || name.ends_with(".scale");
    alive.push_back(tensor.detach().to(at::kCPU, fp32 ? at::kFloat : at::kBFloat16).contiguous());
    views.push_back(as_view(name, alive.back()));
  }
  path.extension() == ".safetensors" ? formats::write_safetensors(path, views)
                                     : formats::write_torch_archive(path, views);
}

std::string precision_text(const model::ModelConfig* config, const LoadOptions& options) {
  std::string text = options.dtype == at::kBFloat16 ? "bf16" : options.dtype == at::kDouble ? "fp64" : "fp32";
  if (config != nullptr && config->fp8_input_projections)
    text += options.fp8 == Fp8::emulate ? ", input projections in FP8 (e4m3, emulated)"
                                        : ", FP8 input projections OFF";
  return text;
}

LoadedModel load_model(const std::string& config_path, const std::string& checkpoint_path,
                       at::ScalarType dtype, const std::string& device, Fp8 fp8, bool own_memory) {
  const auto placement = [&device](const model::Backbone& built) {
    return model::parse_placement(device, built);
  };
  const LoadOptions options{.dtype = dtype, .fp8 = fp8, .writable = own_memory, .placement = placement};
  std::shared_ptr<model::Backbone> model;
  std::shared_ptr<TensorFile> file;
  std::string precision = precision_text(nullptr, options);
  if (const auto hugging_face = hugging_face_config(config_path, checkpoint_path)) {
    std::tie(model, file) = load_llama(*hugging_face, checkpoint_path, options);
  } else {
    const auto build = [&] {
      const nn::DeferAllocation no_memory_yet;
      return std::make_shared<model::StripedHyena>(model::read_model_config(config_path));
    };
    const auto striped_hyena = build();
    file = load_weights_file(*striped_hyena, checkpoint_path, options);
    precision = precision_text(&striped_hyena->config(), options);
    model = striped_hyena;
  }
  model->set_trainable(false);
  model->eval();
  return {model, formats::fingerprint(*file), precision};
}

}  // namespace focus::weights
