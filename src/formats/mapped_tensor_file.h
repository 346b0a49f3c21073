// What both file formats share: the mapping, checked sizes, tensors that need a copy of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "file_bytes.h"
#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// Bytes of a tensor; nothing where a dimension is negative, there are more than 64, or the product leaves 64
/// bits (zero dimensions are taken as 1 for that, so that no partial product can overflow either).
std::optional<std::int64_t> checked_num_bytes(const std::vector<std::int64_t>& shape, DType dtype);

/// What Transformer Engine calls the entries that hold its FP8 scales.
bool is_extra_state(const std::string& name);

class MappedTensorFile : public TensorFile {
 protected:
  MappedTensorFile(std::unique_ptr<FileBytes> file, std::string format);

  const std::string& where() const { return file_->where(); }
  /// Adds a tensor whose bytes begin at this offset, which must lie within the file with all of them. Those
  /// that two parts share are copied; so are misaligned ones of a single file. A one-dimensional U8 tensor
  /// called ..._extra_state becomes an opaque entry of `kind`.
  void add(TensorView tensor, std::uint64_t offset, OpaqueEntry::Kind kind);
  /// Adds a tensor whose `data` is in memory from allocate().
  void add_copied(TensorView tensor, OpaqueEntry::Kind kind);
  /// Memory for a copy. All copies together may not exceed the file's size: an honest file cannot need more.
  std::byte* allocate(std::int64_t num_bytes, const std::string& entry);

  std::unique_ptr<FileBytes> file_;

 private:
  std::vector<std::unique_ptr<std::byte[]>> owned_;
  std::uint64_t budget_bytes_ = 0;
};

/// Each takes over the opened file.
std::shared_ptr<TensorFile> read_torch_archive(std::unique_ptr<FileBytes> file);
std::shared_ptr<TensorFile> read_safetensors(std::unique_ptr<FileBytes> file);
/// The index of a sharded checkpoint; the shards lie in `folder`.
std::shared_ptr<TensorFile> read_safetensors_index(const FileBytes& index,
                                                   const std::filesystem::path& folder);

}  // namespace focus::formats
