#include "mapped_tensor_file.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>

#include "focus/core/error.h"
#include "printable.h"

namespace focus::weights {

std::optional<std::int64_t> checked_num_bytes(const std::vector<std::int64_t>& shape, DType dtype) {
  constexpr std::size_t kMaxRank = 64;
  if (shape.size() > kMaxRank) return std::nullopt;
  std::int64_t num_bytes = size_of(dtype);
  bool empty = false;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(num_bytes, std::max<std::int64_t>(size, 1), &num_bytes)) return std::nullopt;
    empty = empty || size == 0;
  }
  return empty ? 0 : num_bytes;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  constexpr std::size_t kShown = 8;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(shape.size(), kShown); ++i) text += concat(i == 0 ? "" : ", ", shape[i]);
  return text + (shape.size() > kShown ? ", ...]" : "]");
}

void check_writable(const std::filesystem::path& path, const std::vector<TensorView>& tensors) {
  const auto refuse = [&](const TensorView& tensor, const std::string& why) {
    fail<DataError>("cannot write '", path.string(), "': tensor ", printable(tensor.name), " ", why);
  };
  std::set<std::string_view> names;
  for (const TensorView& tensor : tensors) {
    if (tensor.name.empty() || !is_utf8(tensor.name)) refuse(tensor, "needs a name in UTF-8");
    if (!names.insert(tensor.name).second) refuse(tensor, "occurs twice; every tensor needs a name of its own");
    const std::optional<std::int64_t> num_bytes = checked_num_bytes(tensor.shape, tensor.dtype);
    if (!num_bytes) refuse(tensor, concat("has the impossible shape ", shape_text(tensor.shape)));
    if (*num_bytes > 0 && tensor.data == nullptr) refuse(tensor, concat("of shape ", shape_text(tensor.shape), " has no data"));
  }
}

MappedTensorFile::MappedTensorFile(std::unique_ptr<FileBytes> file, std::string format)
    : file_(std::move(file)), budget_bytes_(static_cast<std::int64_t>(file_->bytes().size())) {
  format_ = std::move(format);
}

void MappedTensorFile::add(TensorView tensor) {
  const std::int64_t num_bytes = tensor.num_bytes();
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (num_bytes > 0 && address % static_cast<std::uintptr_t>(size_of(tensor.dtype)) != 0) {
    std::byte* copy = allocate(num_bytes, tensor.name);
    std::memcpy(copy, tensor.data, static_cast<std::size_t>(num_bytes));
    tensor.data = copy;
  }
  if (!index_.emplace(tensor.name, tensors_.size()).second) {
    fail<WeightsError>(where(), ": two tensors are called ", printable(tensor.name), "; expected every name once");
  }
  tensors_.push_back(std::move(tensor));
}

std::byte* MappedTensorFile::allocate(std::int64_t num_bytes, const std::string& tensor) {
  if (num_bytes > budget_bytes_) {
    fail<WeightsError>(where(), ": tensor ", printable(tensor), " would need ", num_bytes, " bytes of memory of its own, ", budget_bytes_,
                       " are left for a file of this size; save the file again with contiguous tensors");
  }
  budget_bytes_ -= num_bytes;
  return owned_.emplace_back(std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(num_bytes))).get();
}

}  // namespace focus::weights
