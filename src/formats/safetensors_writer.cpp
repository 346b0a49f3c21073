#include "focus/formats/safetensors_writer.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "little_endian.h"
#include "printable.h"
#include "writable.h"

namespace focus::formats {
namespace {

constexpr std::string_view kExtension = ".safetensors", kIndexEnding = ".index.json";
constexpr std::size_t kMaxShards = 99'999;  // names have five digits

/// Length and JSON, padded to 8 bytes. DataError naming `path`: a reserved name, metadata that are not UTF-8.
std::string header_of(const std::filesystem::path& path, std::span<const TensorView> tensors,
                      const std::map<std::string, std::string>& metadata) {
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    const char* separator = "";
    for (const auto& [key, value] : metadata) {
      if (!is_utf8(key) || !is_utf8(value))
        fail<DataError>("cannot write '", path.string(), "': metadata ", printable(key), " is not UTF-8");
      header += concat(separator, quoted(key), ":", quoted(value));
      separator = ",";
    }
    header += "}";
  }
  std::int64_t offset = 0;
  for (const TensorView& tensor : tensors) {
    if (tensor.name == "__metadata__")
      fail<DataError>("cannot write '", path.string(),
                      "': the name '__metadata__' is reserved by safetensors");
    std::string shape;
    for (const std::int64_t size : tensor.shape) shape += concat(shape.empty() ? "" : ",", size);
    header += concat(header.size() > 1 ? "," : "", quoted(tensor.name), ":{\"dtype\":\"",
                     name_of(tensor.dtype), "\",\"shape\":[", shape, "],\"data_offsets\":[", offset, ",",
                     offset + tensor.num_bytes(), "]}");
    offset += tensor.num_bytes();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string length;
  append_little(length, static_cast<std::uint64_t>(header.size()));
  return length + header;
}

/// Header and tensors into a file that the caller commits.
void write_to(AtomicFile& file, const std::string& header, std::span<const TensorView> tensors) {
  file.write(header);
  for (const TensorView& tensor : tensors)
    file.write(tensor.data, static_cast<std::size_t>(tensor.num_bytes()));
}

struct Shard {
  std::filesystem::path path;
  std::span<const TensorView> tensors;
  std::string header;
};

/// Fills shards in the given order; a tensor beyond the limit gets one of its own.
std::vector<std::span<const TensorView>> cut(const std::vector<TensorView>& tensors,
                                             std::int64_t max_shard_bytes) {
  std::vector<std::span<const TensorView>> shards;
  std::size_t begin = 0;
  std::int64_t filled = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t num_bytes = tensors[i].num_bytes();
    if (i > begin && num_bytes > max_shard_bytes - filled) {
      shards.emplace_back(tensors.data() + begin, i - begin);
      begin = i;
      filled = 0;
    }
    filled += num_bytes;
  }
  shards.emplace_back(tensors.data() + begin, tensors.size() - begin);
  return shards;
}

std::string shard_name(const std::string& stem, std::size_t number, std::size_t count) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "-%05zu-of-%05zu", number, count);
  return concat(stem, digits, kExtension);
}

struct Place {
  std::filesystem::path folder;
  std::string stem;
};

Place place_of(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  if (name.ends_with(concat(kExtension, kIndexEnding))) name.resize(name.size() - kIndexEnding.size());
  if (!name.ends_with(kExtension)) return {path, "model"};
  name.resize(name.size() - kExtension.size());
  return {path.has_parent_path() ? path.parent_path() : ".", name};
}

/// What was made, removed again, the last first, unless it is kept.
class Made {
 public:
  Made() = default;
  ~Made() {
    std::error_code ignored;
    for (auto path = paths_.rbegin(); path != paths_.rend(); ++path) std::filesystem::remove(*path, ignored);
  }
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;
  void add(const std::filesystem::path& path) { paths_.push_back(path); }
  void folder(const std::filesystem::path& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) return;
    if (!std::filesystem::create_directory(path, error) || error)
      fail<DataError>("cannot create the folder '", path.string(), "': ", error.message(),
                      "; check that its parent exists and is writable");
    add(path);
  }
  void keep() { paths_.clear(); }

 private:
  std::vector<std::filesystem::path> paths_;
};

}  // namespace

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::vector<OpaqueEntry>& opaque, const WriteProgress& progress) {
  check_writable(path, tensors, opaque);
  const std::vector<TensorView> all = with_opaque_as_tensors(path, tensors, opaque);
  const std::string header = header_of(path, all, metadata);
  check_room(path, num_bytes_of(all, {}) + static_cast<std::int64_t>(header.size()));
  AtomicFile file(path, progress);
  write_to(file, header, all);
  file.commit();
}

SafetensorsStream::SafetensorsStream(const std::filesystem::path& path,
                                     const std::vector<TensorView>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const std::string header = header_of(path, tensors, metadata);
  size_ = num_bytes_of(tensors, {}) + static_cast<std::int64_t>(header.size());
  check_room(path, size_);
  file_.write(header);
}

void SafetensorsStream::write(const void* bytes, std::size_t num_bytes) {
  FOCUS_CHECK(static_cast<std::int64_t>(num_bytes) <= size_ - file_.size(),
              "more bytes than the header announces");
  file_.write(bytes, num_bytes);
}

void SafetensorsStream::commit() {
  FOCUS_CHECK(file_.size() == size_, file_.size(), " of ", size_, " bytes written");
  file_.commit();
}

void write_safetensors_shards(const std::filesystem::path& path, const std::vector<TensorView>& tensors,
                              const std::map<std::string, std::string>& metadata,
                              std::int64_t max_shard_bytes, const std::vector<OpaqueEntry>& opaque,
                              const WriteProgress& progress) {
  if (max_shard_bytes <= 0)
    fail<ConfigError>("shards of ", max_shard_bytes, " bytes were asked for; expected a positive size");
  check_writable(path, tensors, opaque);
  const std::vector<TensorView> all = with_opaque_as_tensors(path, tensors, opaque);
  const auto [folder, stem] = place_of(path);
  const std::filesystem::path index_path = folder / concat(stem, kExtension, kIndexEnding);
  std::error_code ignored;
  if (std::filesystem::exists(index_path, ignored)) {
    fail<DataError>(
        "cannot write '", index_path.string(),
        "': a checkpoint in shards is already there; remove it, or choose another folder or name");
  }

  const auto pieces = cut(all, max_shard_bytes);
  if (pieces.size() > kMaxShards) {
    fail<DataError>("cannot write '", path.string(), "': shards of ", max_shard_bytes, " bytes would make ",
                    pieces.size(), " files, more than ", kMaxShards, "; choose larger shards");
  }
  std::vector<Shard> shards;
  nlohmann::ordered_json index = {{"metadata", {{"total_size", num_bytes_of(all, {})}}},
                                  {"weight_map", nlohmann::ordered_json::object()}};
  std::int64_t room = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string name = shard_name(stem, i + 1, pieces.size());
    shards.push_back({folder / name, pieces[i], header_of(folder / name, pieces[i], metadata)});
    room += static_cast<std::int64_t>(shards.back().header.size());
    for (const TensorView& tensor : pieces[i]) {
      index["weight_map"][tensor.name] = name;
      room += tensor.num_bytes();
    }
  }

  Made made;
  made.folder(folder);
  check_room(index_path, room);
  // All shards are complete on the disk before the first gets its name, and the index comes last: it is what
  // makes them a checkpoint.
  std::vector<std::unique_ptr<AtomicFile>> files;
  for (const Shard& shard : shards) {
    files.push_back(std::make_unique<AtomicFile>(shard.path, progress));
    write_to(*files.back(), shard.header, shard.tensors);
    files.back()->close();
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    files[i]->commit();
    made.add(shards[i].path);
  }
  write_file(index_path, index.dump(2) + "\n");
  made.keep();
}

}  // namespace focus::formats
