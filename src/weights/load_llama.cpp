#include "load_llama.h"

#include "fill.h"
#include "focus/core/error.h"
#include "focus/nn/parameter.h"
#include "focus/weights/tensor_view.h"
#include "focus/weights/wrapped_names.h"

namespace focus::weights {

using formats::TensorFile;
using formats::TensorView;

namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kUnembedding = "lm_head.weight";

/// Files of old releases hold these; they follow from the configuration.
bool is_rotary(const std::string& name) { return name.ends_with("rotary_emb.inv_freq"); }

/// Tied models may store the unembedding too: then it must be the embedding.
void check_tied(const TensorFile& file) {
  const TensorView *in = file.find(kEmbedding), *out = file.find(kUnembedding);
  if (in == nullptr || out == nullptr) return;
  const bool same = in->dtype == out->dtype && in->shape == out->shape &&
                    (in->data == out->data || at::equal(as_tensor(*in), as_tensor(*out)));
  if (!same)
    fail<WeightsError>("tensor '", kUnembedding, "' differs from '", kEmbedding,
                       "', but the config says tie_word_embeddings: one of them would be ignored; set it to "
                       "false if the file is right");
}

}  // namespace

std::optional<fs::path> hugging_face_config(const std::string& config_path,
                                            const std::string& checkpoint_path) {
  const fs::path config = config_path;
  if (config_path.empty()) {
    const fs::path found = fs::path(checkpoint_path) / "config.json";
    if (fs::is_regular_file(found)) return found;
    fail<ConfigError>(
        "no model config: give an Evo-2 YAML file, or a checkpoint folder with a config.json; '",
        checkpoint_path, "' has none");
  }
  if (fs::is_directory(config)) {
    if (fs::is_regular_file(config / "config.json")) return config / "config.json";
    fail<ConfigError>("model config: folder '", config_path, "' has no config.json");
  }
  if (config.extension() == ".json") return config;
  return std::nullopt;
}

std::pair<std::shared_ptr<model::Llama>, std::shared_ptr<TensorFile>> load_llama(const fs::path& config,
                                                                                 const fs::path& checkpoint,
                                                                                 const LoadOptions& options) {
  const model::LlamaConfig shape = model::read_llama_config(config);
  const model::Vocabulary vocabulary = model::read_vocabulary(config.parent_path(), shape.vocab_size);
  const auto build = [&] {
    const nn::DeferAllocation no_memory_yet;
    return std::make_shared<model::Llama>(shape, vocabulary);
  };
  const auto model = build();
  const auto file = open_model_file(checkpoint);
  Filling rules;
  rules.computed = is_rotary;
  rules.computes_nothing = [&](const std::string& name) {
    return is_rotary(name) || (shape.tied && name == kUnembedding);
  };
  try {
    fill(*model, file, options, rules);
    if (shape.tied) check_tied(*file);
  } catch (const WeightsError& e) {
    fail<WeightsError>("'", checkpoint.string(), "': ", e.what());
  }
  return {model, file};
}

}  // namespace focus::weights
