#include "mapped_tensor_file.h"

#include <algorithm>

#include "focus/core/error.h"
#include "printable.h"

namespace focus::formats {

std::optional<std::int64_t> checked_num_bytes(const std::vector<std::int64_t>& shape, DType dtype) {
  constexpr std::size_t kMaxRank = 64;
  if (shape.size() > kMaxRank) return std::nullopt;
  std::int64_t num_bytes = size_of(dtype);
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(num_bytes, std::max<std::int64_t>(size, 1), &num_bytes))
      return std::nullopt;
    empty = empty || size == 0;
  }
  return empty ? 0 : num_bytes;
}

bool is_extra_state(const std::string& name) { return name.ends_with("_extra_state"); }

MappedTensorFile::MappedTensorFile(std::unique_ptr<FileBytes> file, std::string format)
    : file_(std::move(file)), budget_bytes_(file_->size()) {
  format_ = std::move(format);
  files_ = file_->files();
}

void MappedTensorFile::add(TensorView tensor, std::uint64_t offset, OpaqueEntry::Kind kind) {
  const std::int64_t num_bytes = tensor.num_bytes();
  tensor.data = file_->in_place(offset, static_cast<std::uint64_t>(num_bytes));
  if (num_bytes > 0 && (tensor.data == nullptr || (!tensor.is_aligned() && file_->pieces().size() == 1))) {
    std::byte* copy = allocate(num_bytes, tensor.name);
    file_->copy(offset, static_cast<std::uint64_t>(num_bytes), copy);
    tensor.data = copy;
  }
  add_copied(std::move(tensor), kind);
}

void MappedTensorFile::add_copied(TensorView tensor, OpaqueEntry::Kind kind) {
  if (tensor.dtype != DType::uint8 || tensor.shape.size() != 1 || !is_extra_state(tensor.name))
    return add_tensor(std::move(tensor), where());
  const std::span<const std::byte> content(tensor.data, static_cast<std::size_t>(tensor.num_bytes()));
  add_opaque({std::move(tensor.name), kind, content}, where());
}

std::byte* MappedTensorFile::allocate(std::int64_t num_bytes, const std::string& entry) {
  if (static_cast<std::uint64_t>(num_bytes) > budget_bytes_) {
    fail<WeightsError>(where(), ": tensor ", printable(entry), " would need ", num_bytes,
                       " bytes of memory of its own, ", budget_bytes_,
                       " are left for a file of this size; save the file again with contiguous tensors");
  }
  budget_bytes_ -= static_cast<std::uint64_t>(num_bytes);
  return owned_.emplace_back(std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(num_bytes)))
      .get();
}

}  // namespace focus::formats
