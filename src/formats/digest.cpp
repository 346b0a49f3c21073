#include "focus/formats/digest.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "file_bytes.h"
#include "sha256.h"

namespace focus::formats {
namespace {

constexpr std::size_t kWhole = 65'536, kEnd = 16'384, kBlock = 4'096, kNumBlocks = 8;

/// The pieces of large content that fingerprint() reads.
std::vector<std::span<const std::byte>> samples_of(std::span<const std::byte> content) {
  if (content.size() <= kWhole) return {content};
  const std::size_t step = (content.size() - 2 * kEnd - kBlock) / (kNumBlocks - 1);
  std::vector<std::span<const std::byte>> samples = {content.first(kEnd)};
  for (std::size_t i = 0; i < kNumBlocks; ++i) samples.push_back(content.subspan(kEnd + i * step, kBlock));
  samples.push_back(content.last(kEnd));
  return samples;
}

/// While it lives, a mapped file is read only where it is asked for: left alone, the system reads megabytes
/// around every sample.
class SparseReading {
 public:
  explicit SparseReading(std::vector<std::span<const std::byte>> contents) : contents_(std::move(contents)) {
    std::erase_if(contents_, [](const auto& content) { return content.size() <= kWhole; });
    for (const auto& content : contents_) advise(content, Access::random);
    // All at once, so that a disk or network serves them side by side.
    for (const auto& content : contents_) {
      for (const auto& sample : samples_of(content)) advise(sample, Access::soon);
    }
  }
  ~SparseReading() {
    for (const auto& content : contents_) advise(content, Access::in_order);
  }
  SparseReading(const SparseReading&) = delete;
  SparseReading& operator=(const SparseReading&) = delete;

 private:
  std::vector<std::span<const std::byte>> contents_;
};

class EntryHash {
 public:
  void text(std::string_view value) {
    number(value.size());
    raw(value);
  }
  void raw(std::string_view value) { hash_.update(value.data(), value.size()); }
  void number(std::uint64_t value) { hash_.update(&value, sizeof value); }
  void head(std::string_view name, std::string_view dtype, std::span<const std::int64_t> shape) {
    text(name);
    text(dtype);
    number(shape.size());
    for (const std::int64_t size : shape) number(static_cast<std::uint64_t>(size));
  }
  void bytes(std::span<const std::byte> value) {
    if (!value.empty()) hash_.update(value.data(), value.size());
  }
  void sample(std::span<const std::byte> value) {
    for (const auto& piece : samples_of(value)) bytes(piece);
  }
  std::string hex() { return hash_.hex(); }

 private:
  Sha256 hash_;
};

std::span<const std::byte> bytes_of(const TensorView& tensor) {
  return {tensor.data, static_cast<std::size_t>(tensor.num_bytes())};
}

template <class Entry>
std::vector<const Entry*> in_name_order(const std::vector<Entry>& entries) {
  std::vector<const Entry*> order;
  for (const Entry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return a->name < b->name; });
  return order;
}

}  // namespace

std::string digest(const TensorFile& file) { return digest(file.tensors()); }

std::string digest(const std::vector<TensorView>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  EntryHash hash;
  for (const TensorView* tensor : in_name_order(tensors)) {
    hash.head(tensor->name, name_of(tensor->dtype), tensor->shape);
    hash.bytes(bytes_of(*tensor));
  }
  if (!metadata.empty()) hash.raw("metadata");
  for (const auto& [key, value] : metadata) {
    hash.text(key);
    hash.text(value);
  }
  return hash.hex();
}

std::string fingerprint(const TensorFile& file) {
  std::vector<std::span<const std::byte>> contents;
  for (const TensorView& tensor : file.tensors()) contents.push_back(bytes_of(tensor));
  const SparseReading reading(std::move(contents));
  EntryHash hash;
  hash.raw("focus fingerprint 1");
  for (const TensorView* tensor : in_name_order(file.tensors())) {
    hash.head(tensor->name, name_of(tensor->dtype), tensor->shape);
    hash.sample(bytes_of(*tensor));
  }
  for (const OpaqueEntry* entry : in_name_order(file.opaque())) {
    if (entry->kind == OpaqueEntry::Kind::none || entry->kind == OpaqueEntry::Kind::other) continue;
    const auto size = static_cast<std::int64_t>(entry->content.size());
    hash.head(entry->name, "opaque", {&size, 1});
    hash.sample(entry->content);
  }
  return hash.hex();
}

std::string file_digest(const std::filesystem::path& path) {
  const FileBytes file(path);
  EntryHash hash;
  for (const std::span<const std::byte> piece : file.pieces()) hash.bytes(piece);
  return hash.hex();
}

}  // namespace focus::formats
