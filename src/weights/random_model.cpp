#include <unistd.h>

#include <filesystem>

#include "fill.h"
#include "focus/core/error.h"
#include "focus/core/temporary.h"
#include "focus/formats/digest.h"
#include "focus/model/placement.h"
#include "focus/nn/parameter.h"
#include "focus/weights/load_model.h"
#include "focus/weights/random_weights.h"

namespace focus::weights {
namespace {

class RandomFile final : public formats::TensorFile {
 public:
  RandomFile(const model::ModelConfig& config, const RandomWeightsOptions& options)
      : weights_(config, options) {
    format_ = "random";
    for (formats::TensorView tensor : weights_.tensors()) add_tensor(std::move(tensor), format_);
    for (formats::OpaqueEntry entry : weights_.opaque()) add_opaque(std::move(entry), format_);
  }

 private:
  RandomWeights weights_;
};

}  // namespace

LoadedModel random_model(const std::string& config_path, uint64_t seed, LoadOptions options,
                         const std::string& device) {
  const model::ModelConfig config = model::read_model_config(config_path);
  const auto build = [&] {
    const nn::DeferAllocation no_memory_yet;
    return std::make_shared<model::StripedHyena>(config);
  };
  const auto model = build();
  const Temporary scratch(std::filesystem::temp_directory_path() / concat("focus-random-", ::getpid()));
  const auto file =
      std::make_shared<RandomFile>(config, RandomWeightsOptions{.seed = seed, .scratch = scratch.path()});
  options.placement = [&device](const model::Backbone& built) {
    return model::parse_placement(device, built);
  };
  load_weights(*model, file, options);
  model->set_trainable(false);
  model->eval();
  return {model, formats::fingerprint(*file), precision_text(&config, options)};
}

}  // namespace focus::weights
