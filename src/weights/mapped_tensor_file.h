// What both file formats share: the mapping, checked sizes, tensors that need a copy of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "file_bytes.h"
#include "focus/weights/tensor_file.h"

namespace focus::weights {

/// Bytes of a tensor; nothing where a dimension is negative, there are more than 64, or the product leaves 64 bits (zero dimensions are
/// taken as 1 for that, so that no partial product can overflow either).
std::optional<std::int64_t> checked_num_bytes(const std::vector<std::int64_t>& shape, DType dtype);

/// [2, 3]
std::string shape_text(const std::vector<std::int64_t>& shape);

/// Throws DataError naming `path` when the tensors cannot be written: a repeated, empty or non-UTF-8 name, a bad shape, missing data.
void check_writable(const std::filesystem::path& path, const std::vector<TensorView>& tensors);

class MappedTensorFile : public TensorFile {
 protected:
  MappedTensorFile(std::unique_ptr<FileBytes> file, std::string format);

  const std::string& where() const { return file_->where(); }
  /// Adds a tensor whose data may lie at any alignment; misaligned data is copied. A repeated name is a WeightsError.
  void add(TensorView tensor);
  /// Memory for a copy. All copies together may not exceed the file's size: an honest file cannot need more.
  std::byte* allocate(std::int64_t num_bytes, const std::string& tensor);

  std::unique_ptr<FileBytes> file_;

 private:
  std::vector<std::unique_ptr<std::byte[]>> owned_;
  std::int64_t budget_bytes_ = 0;
};

/// Each takes over the opened file.
std::shared_ptr<TensorFile> read_torch_archive(std::unique_ptr<FileBytes> file);
std::shared_ptr<TensorFile> read_safetensors(std::unique_ptr<FileBytes> file);

}  // namespace focus::weights
