// Hugging Face model folders: config.json, tokenizer files, model.safetensors.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "focus/model/llama.h"
#include "focus/weights/load_model.h"

namespace focus::weights {

/// The config.json that the two paths of a model mean; nothing where they mean an Evo-2 YAML. ConfigError: a
/// folder without config.json, no config at all.
std::optional<std::filesystem::path> hugging_face_config(const std::string& config_path,
                                                         const std::string& checkpoint_path);

/// Weights keep the file's digits but for the conversion to `options.dtype`. ConfigError, and WeightsError as
/// load_weights; a stored lm_head.weight that differs from the embedding it is said to be tied to is one too.
std::pair<std::shared_ptr<model::Llama>, std::shared_ptr<formats::TensorFile>> load_llama(
    const std::filesystem::path& config, const std::filesystem::path& checkpoint, const LoadOptions& options);

}  // namespace focus::weights
