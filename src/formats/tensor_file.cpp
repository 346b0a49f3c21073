#include "focus/formats/tensor_file.h"

#include <algorithm>
#include <string_view>

#include "focus/core/error.h"
#include "mapped_tensor_file.h"
#include "printable.h"

namespace focus::formats {
namespace {

struct DTypeFacts {
  DType dtype;
  const char* name;
  std::int64_t num_bytes;
};
constexpr DTypeFacts kDTypes[] = {{DType::float32, "F32", 4},
                                  {DType::bfloat16, "BF16", 2},
                                  {DType::float16, "F16", 2},
                                  {DType::float64, "F64", 8},
                                  {DType::int64, "I64", 8},
                                  {DType::int32, "I32", 4},
                                  {DType::int16, "I16", 2},
                                  {DType::int8, "I8", 1},
                                  {DType::uint8, "U8", 1},
                                  {DType::boolean, "BOOL", 1},
                                  {DType::float8_e4m3, "F8_E4M3", 1},
                                  {DType::float8_e5m2, "F8_E5M2", 1}};

const DTypeFacts& facts_of(DType dtype) {
  for (const DTypeFacts& facts : kDTypes) {
    if (facts.dtype == dtype) return facts;
  }
  fail<InternalError>("a DType that is not in the table");
}

/// The index of a folder's shards, or its only safetensors file.
std::filesystem::path file_of_folder(const std::filesystem::path& folder) {
  constexpr std::string_view kSuffix = ".safetensors", kIndexSuffix = ".safetensors.index.json";
  std::vector<std::filesystem::path> files, indices;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.ends_with(kIndexSuffix)) indices.push_back(entry->path());
    if (name.ends_with(kSuffix)) files.push_back(entry->path());
    if (name == concat("model", kIndexSuffix)) return entry->path();
  }
  if (error) fail<WeightsError>("cannot read the folder '", folder.string(), "': ", error.message());
  if (indices.size() == 1) return indices.front();
  if (indices.size() > 1) {
    fail<WeightsError>("'", folder.string(), "' holds ", indices.size(), " checkpoints in shards (*",
                       kIndexSuffix, "); pass the index of one");
  }
  if (files.size() == 1) return files.front();
  if (files.empty()) {
    fail<WeightsError>("no weights in the folder '", folder.string(), "': it holds neither *", kIndexSuffix,
                       " nor *", kSuffix, "; pass a checkpoint file, or the folder of one in shards");
  }
  fail<WeightsError>("'", folder.string(), "' holds ", files.size(), " files *", kSuffix, " but no index (*",
                     kIndexSuffix,
                     ") that says which belong together; download the index too, or pass one of the files");
}

/// Also safetensors begin with a length that could look like "{", but as text its 8 bytes would be far beyond
/// the longest header.
bool begins_like_json(std::string_view head) {
  const std::size_t first = head.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && head[first] == '{' && head.back() != '\0';
}

}  // namespace

std::int64_t size_of(DType dtype) { return facts_of(dtype).num_bytes; }

const char* name_of(DType dtype) { return facts_of(dtype).name; }

std::optional<DType> dtype_named(std::string_view name) {
  for (const DTypeFacts& facts : kDTypes) {
    if (facts.name == name) return facts.dtype;
  }
  return std::nullopt;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  constexpr std::size_t kShown = 8;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(shape.size(), kShown); ++i)
    text += concat(i == 0 ? "" : ", ", shape[i]);
  return text + (shape.size() > kShown ? ", ...]" : "]");
}

std::int64_t TensorView::num_elements() const {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

bool TensorView::is_aligned() const {
  return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(size_of(dtype)) == 0;
}

std::shared_ptr<TensorFile> TensorFile::open(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open(file_of_folder(path));
  auto file = std::make_unique<FileBytes>(path);
  std::string head(std::min<std::uint64_t>(file->size(), 8), '\0');
  file->copy(0, head.size(), head.data());
  // "PK" 5 6 begins an empty zip, which deserves the zip reader's message.
  if (head.starts_with("PK\x03\x04") || head.starts_with("PK\x05\x06"))
    return read_torch_archive(std::move(file));
  if (begins_like_json(head)) return read_safetensors_index(*file, path.parent_path());
  return read_safetensors(std::move(file));
}

const TensorView* TensorFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::optional<std::span<const std::byte>> TensorFile::opaque(const std::string& name) const {
  const auto found = opaque_index_.find(name);
  if (found == opaque_index_.end()) return std::nullopt;
  return opaque_[found->second].content;
}

void TensorFile::add_tensor(TensorView tensor, const std::string& where) {
  if (opaque_index_.contains(tensor.name) || !index_.emplace(tensor.name, tensors_.size()).second) {
    fail<WeightsError>(where, ": two entries are called ", printable(tensor.name),
                       "; expected every name once");
  }
  tensors_.push_back(std::move(tensor));
}

void TensorFile::add_opaque(OpaqueEntry entry, const std::string& where) {
  if (index_.contains(entry.name) || !opaque_index_.emplace(entry.name, opaque_.size()).second) {
    fail<WeightsError>(where, ": two entries are called ", printable(entry.name),
                       "; expected every name once");
  }
  opaque_names_.push_back(entry.name);
  opaque_.push_back(std::move(entry));
}

}  // namespace focus::formats
