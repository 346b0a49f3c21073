// Adapters on disk.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "focus/compress/focus/adapter.h"
#include "focus/model/adapt.h"

namespace focus::compress {

/// One safetensors file: parameters, those of the backbone that were trained with them, and in its metadata the configurations of both and
/// the original backbone's digest.
void save_adapter(const FocusAdapter& adapter, const model::AdaptedBackbone& adapted, const std::string& backbone_digest,
                  const std::filesystem::path& path);
struct LoadedAdapter {
  std::shared_ptr<FocusAdapter> adapter;
  model::AdaptedBackbone adapted;  // what the adapter runs on: `backbone` itself, or a twin of it with the trained changes, frozen
};
/// CheckpointError: another backbone, tensors missing, unexpected or of another shape.
LoadedAdapter load_adapter(const std::filesystem::path& path, const std::shared_ptr<model::Backbone>& backbone,
                           const std::string& backbone_digest);
/// Only the configuration of an adapter file.
MemoryConfig read_adapter_config(const std::filesystem::path& path);
/// The adapter file that a path means: itself, or adapter.safetensors in a run's folder. CheckpointError when it is not there.
std::filesystem::path adapter_file(const std::filesystem::path& path);

}  // namespace focus::compress
