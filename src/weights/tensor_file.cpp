#include "focus/weights/tensor_file.h"

#include <algorithm>
#include <string_view>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "mapped_tensor_file.h"
#include "sha256.h"

namespace focus::weights {

std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64: return 8;
    case DType::float32:
    case DType::int32: return 4;
    case DType::bfloat16:
    case DType::float16:
    case DType::int16: return 2;
    case DType::int8:
    case DType::uint8:
    case DType::boolean: return 1;
  }
  fail<InternalError>("a DType without a size");
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::float32: return "F32";
    case DType::bfloat16: return "BF16";
    case DType::float16: return "F16";
    case DType::float64: return "F64";
    case DType::int64: return "I64";
    case DType::int32: return "I32";
    case DType::int16: return "I16";
    case DType::int8: return "I8";
    case DType::uint8: return "U8";
    case DType::boolean: return "BOOL";
  }
  fail<InternalError>("a DType without a name");
}

std::int64_t TensorView::num_elements() const {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::shared_ptr<TensorFile> TensorFile::open(const std::filesystem::path& path) {
  auto file = std::make_unique<FileBytes>(path);
  const std::span<const std::byte> bytes = file->bytes();
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 4));
  // "PK" 5 6 begins an empty zip, which deserves the zip reader's message.
  if (head == "PK\x03\x04" || head == "PK\x05\x06") return read_torch_archive(std::move(file));
  return read_safetensors(std::move(file));
}

const TensorView* TensorFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::string digest(const TensorFile& file) {
  std::vector<const TensorView*> order;
  for (const TensorView& tensor : file.tensors()) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) { return a->name < b->name; });
  Sha256 hash;
  const auto add_number = [&hash](std::uint64_t value) { hash.update(&value, sizeof value); };
  const auto add_text = [&](std::string_view text) {
    add_number(text.size());
    hash.update(text.data(), text.size());
  };
  for (const TensorView* tensor : order) {
    add_text(tensor->name);
    add_text(name_of(tensor->dtype));
    add_number(tensor->shape.size());
    for (const std::int64_t size : tensor->shape) add_number(static_cast<std::uint64_t>(size));
    hash.update(tensor->data, static_cast<std::size_t>(tensor->num_bytes()));
  }
  return hash.hex();
}

std::string file_digest(const std::filesystem::path& path) {
  const FileBytes file(path);
  Sha256 hash;
  hash.update(file.bytes().data(), file.bytes().size());
  return hash.hex();
}

}  // namespace focus::weights
