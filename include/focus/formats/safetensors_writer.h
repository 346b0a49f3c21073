// Writing safetensors, in one file or in shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "focus/core/file.h"
#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// Writes a safetensors file: 8-byte aligned header, tensors in the given order, then the opaque entries as
/// one-dimensional U8 tensors, from which TensorFile restores them; their names must end with `_extra_state`,
/// and None, numbers and texts are refused. The bytes go from the views straight to the file, so that a
/// checkpoint larger than memory can be converted. The file appears whole or not at all; `progress` may throw
/// to give up. Throws DataError: a repeated, reserved or non-UTF-8 name, a tensor without data, an entry that
/// the format cannot hold, no room on the disk, a file that cannot be written.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       const std::vector<OpaqueEntry>& opaque = {}, const WriteProgress& progress = {});

/// A safetensors file whose tensors come piece by piece, in the given order, so that one larger than memory
/// can be written. The file appears whole or not at all, with commit().
class SafetensorsStream {
 public:
  /// The views' data may be null. DataError as write_safetensors().
  SafetensorsStream(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                    const std::map<std::string, std::string>& metadata);
  /// The next bytes of the tensors. InternalError: more than they have.
  void write(const void* bytes, std::size_t num_bytes);
  /// InternalError unless all bytes have come.
  void commit();

 private:
  AtomicFile file_;
  std::int64_t size_ = 0;  // of the whole file
};

/// As write_safetensors, in shards. `path` is FOLDER/NAME.safetensors (or its index), or a folder; NAME is
/// then `model`; a missing folder is made. Writes NAME-00001-of-0000N.safetensors and so on, then
/// NAME.safetensors.index.json. Shards are filled in the given order up to `max_shard_bytes` of tensor bytes;
/// a larger tensor gets a shard of its own. An index that is already there is never replaced (DataError).
void write_safetensors_shards(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                              const std::map<std::string, std::string>& metadata, int64_t max_shard_bytes,
                              const std::vector<OpaqueEntry>& opaque = {},
                              const WriteProgress& progress = {});

}  // namespace focus::formats
