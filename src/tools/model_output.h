// A model file or folder that appears when all of it is there and checked, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "focus/core/staged_folder.h"
#include "focus/formats/tensor_file.h"

namespace focus::tools {

/// Writes below a StagedFolder of the output's name.
class ModelOutput {
 public:
  /// The format follows from the name: NAME.pt, NAME.safetensors, anything without an extension or with a
  /// final slash is a folder of shards. ConfigError: another extension, an output that exists (without
  /// `force`), a folder that holds anything but shards and their index. DataError: a place that cannot be
  /// written.
  ModelOutput(const std::filesystem::path& path, bool force);

  enum class Format { torch_archive, safetensors, shards };
  Format format() const { return format_; }
  void set_max_shard_bytes(int64_t num_bytes) { max_shard_bytes_ = num_bytes; }
  /// DataError when the disk has less room than this.
  void check_room(int64_t num_bytes) const;
  /// Where a file may be kept meanwhile, on the same disk.
  std::filesystem::path scratch(const std::string& name) const { return folder_.temporary() / name; }
  /// Shows progress and stops when interrupted, by Interrupted.
  void write(const std::vector<formats::TensorView>& tensors,
             const std::map<std::string, std::string>& metadata = {},
             const std::vector<formats::OpaqueEntry>& opaque = {});
  /// What was written, to be opened and checked before commit().
  const std::filesystem::path& staged() const { return staged_; }
  void commit() { folder_.commit(staged_.filename().string()); }
  int64_t tensor_bytes() const { return tensor_bytes_; }

 private:
  Format format_;
  StagedFolder folder_;
  std::filesystem::path staged_;
  int64_t max_shard_bytes_ = int64_t{5} << 30, tensor_bytes_ = 0;
};

/// The constructor's checks alone, without touching the disk.
ModelOutput::Format check_model_output(const std::filesystem::path& path, bool force);

}  // namespace focus::tools
