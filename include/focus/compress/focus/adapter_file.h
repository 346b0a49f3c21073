// Adapters on disk.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "focus/compress/focus/adapter.h"
#include "focus/model/adapt.h"

namespace focus::compress {

/// One safetensors file: parameters, those of the backbone that were trained with them, and in its metadata
/// the configurations of both, the original backbone's digest and, where it is not empty, `training`: how the
/// adapter was made, as JSON.
void save_adapter(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted,
                  const std::string& backbone_digest, const std::filesystem::path& path,
                  const std::string& training = "");
struct LoadedAdapter {
  std::shared_ptr<FocusAdapter> adapter;
  model::AdaptedBackbone adapted;  // what the adapter runs on: `backbone` itself, or a twin of it with the
                                   // trained changes, frozen
  std::string digest;              // SHA-256 (hex) of tensors and settings, not of how they were made
};
/// CheckpointError: another backbone, tensors missing, unexpected or of another shape.
LoadedAdapter load_adapter(const std::filesystem::path& path,
                           const std::shared_ptr<model::Backbone>& backbone,
                           const std::string& backbone_digest);
/// Gives an adapter that is to be trained, and what is trained of its backbone, the parameters of a trained
/// one. Window plan, k and visibility may differ, which the log says. CheckpointError: another backbone, or
/// no adapter. ConfigError naming the settings that differ: units of another kind or size, or another change
/// of the backbone.
void start_from(const std::filesystem::path& path, const FocusAdapter& adapter,
                const model::AdaptedBackbone& adapted, const std::string& backbone_digest);
/// Only the configuration of an adapter file.
MemoryConfig read_adapter_config(const std::filesystem::path& path);
/// The adapter file that a path means: itself, or adapter.safetensors in a run's folder. CheckpointError when
/// it is not there.
std::filesystem::path adapter_file(const std::filesystem::path& path);

}  // namespace focus::compress
