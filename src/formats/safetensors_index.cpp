// A checkpoint in shards: an index says which safetensors file holds which tensor.
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "focus/core/error.h"
#include "mapped_tensor_file.h"
#include "printable.h"

namespace focus::formats {
namespace {

constexpr std::uint64_t kMaxIndexBytes = 100'000'000;

/// Reads the index event by event, so that a repeated name is seen and a deep document is refused where it
/// leaves the format.
class IndexReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit IndexReader(const std::string& where) : where_(where) {}

  std::map<std::string, std::string> shard_of;  // tensor -> file
  bool has_map = false;

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("binary data"); }

  bool string(string_t& text) override {
    if (depth_ != 2 || !in_map_) return value("a text");
    if (!shard_of.emplace(key_, text).second)
      fail<WeightsError>(where_, ": its weight_map names ", printable(key_), " twice");
    return true;
  }

  bool key(string_t& text) override {
    key_ = text;
    if (depth_ != 1) return true;
    if (text != "weight_map" && text != "metadata") return unexpected("the unknown key " + printable(text));
    in_map_ = text == "weight_map";
    if (in_map_ && has_map) return unexpected("a second weight_map");
    has_map = has_map || in_map_;
    return true;
  }

  bool start_object(std::size_t) override {
    if (depth_ >= 2 && in_map_) return unexpected("an object");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ < 2 || in_map_) return unexpected("a list");
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail<WeightsError>(where_, ": malformed JSON at byte ", position,
                       "; expected the index of a checkpoint in shards");
  }

 private:
  // What stands under "metadata" (sizes, which tools count differently) says nothing about the tensors.
  bool value(const char* what) { return depth_ >= 2 && !in_map_ ? true : unexpected(what); }

  [[noreturn]] bool unexpected(const std::string& what) const {
    fail<WeightsError>(where_, ": ", what, " at key ", printable(key_),
                       "; expected the index of a checkpoint in shards: metadata, and a weight_map of "
                       "tensor names to file names");
  }

  const std::string& where_;
  std::size_t depth_ = 0;
  bool in_map_ = false;
  std::string key_;
};

class ShardedSafetensors final : public TensorFile {
 public:
  ShardedSafetensors(const FileBytes& index, const std::filesystem::path& folder) {
    format_ = "safetensors";
    const std::map<std::string, std::string> shard_of = read_index(index);
    std::set<std::string> names;
    for (const auto& [tensor, shard] : shard_of) names.insert(shard);
    check_names(index, folder, names);
    for (const std::string& name : names) add_shard(index, folder, name, shard_of);
    for (const auto& [tensor, shard] : shard_of) {
      if (find(tensor) == nullptr && !opaque(tensor)) {
        fail<WeightsError>(index.where(), ": its weight_map places ", printable(tensor), " in ",
                           printable(shard), ", which does not hold it; ", kAdvice);
      }
    }
  }

 private:
  static constexpr const char* kAdvice =
      "index and shards belong to different checkpoints or one of them is damaged: download all of them "
      "again";

  static std::map<std::string, std::string> read_index(const FileBytes& index) {
    if (index.size() > kMaxIndexBytes) {
      fail<WeightsError>(index.where(), ": JSON of ", index.size(), " bytes, expected at most ",
                         kMaxIndexBytes, " for an index of shards");
    }
    std::string text(index.size(), '\0');
    index.copy(0, text.size(), text.data());
    IndexReader reader(index.where());
    nlohmann::json::sax_parse(text, &reader);
    if (!reader.has_map) {
      fail<WeightsError>(
          index.where(),
          ": JSON without a weight_map; expected a .pt, a safetensors file or the index of one in shards");
    }
    return std::move(reader.shard_of);
  }

  static void check_names(const FileBytes& index, const std::filesystem::path& folder,
                          const std::set<std::string>& names) {
    std::vector<std::string> missing;
    for (const std::string& name : names) {
      // A plain file name: an index must not be able to open files elsewhere.
      if (name.empty() || name == "." || name == ".." ||
          name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
        fail<WeightsError>(index.where(), ": the shard ", printable(name),
                           " is not a plain file name; refused, since shards lie in the index's folder");
      }
      std::error_code ignored;
      if (!std::filesystem::exists(folder / name, ignored)) missing.push_back(name);
    }
    if (!missing.empty()) {
      fail<WeightsError>(index.where(), ": ", missing.size(), " of ", names.size(), " shards ",
                         missing.size() == 1 ? "is" : "are", " missing, ", printable(missing.front()),
                         missing.size() == 1 ? "" : " first",
                         "; download the missing files into the same folder");
    }
  }

  void add_shard(const FileBytes& index, const std::filesystem::path& folder, const std::string& name,
                 const std::map<std::string, std::string>& shard_of) {
    auto bytes = std::make_unique<FileBytes>(folder / name);
    const std::string where = bytes->where();
    if (bytes->size() >= 4 && bytes->load<std::uint32_t>(0) == 0x04034b50) {
      fail<WeightsError>(
          where, ": a zip (.pt), which cannot be a shard of a sharded checkpoint; expected safetensors");
    }
    const std::shared_ptr<TensorFile> shard = read_safetensors(std::move(bytes));
    const auto check = [&](const std::string& tensor) {
      const auto found = shard_of.find(tensor);
      if (found == shard_of.end())
        fail<WeightsError>(where, ": holds ", printable(tensor), ", which the index ", index.where(),
                           " does not name; ", kAdvice);
      if (found->second != name) {
        fail<WeightsError>(where, ": holds ", printable(tensor), ", which the index ", index.where(),
                           " places in ", printable(found->second), "; ", kAdvice);
      }
    };
    for (const TensorView& tensor : shard->tensors()) {
      check(tensor.name);
      add_tensor(tensor, where);
    }
    for (const OpaqueEntry& entry : shard->opaque()) {
      check(entry.name);
      add_opaque(entry, where);
    }
    if (shards_.empty()) {
      metadata_ = shard->metadata();
    } else {
      std::erase_if(metadata_, [&](const auto& item) {
        const auto found = shard->metadata().find(item.first);
        return found == shard->metadata().end() || found->second != item.second;
      });
    }
    files_.insert(files_.end(), shard->files().begin(), shard->files().end());
    shards_.push_back(shard);
  }

  std::vector<std::shared_ptr<TensorFile>> shards_;  // hold what the views point to
};

}  // namespace

std::shared_ptr<TensorFile> read_safetensors_index(const FileBytes& index,
                                                   const std::filesystem::path& folder) {
  return std::make_shared<ShardedSafetensors>(index, folder);
}

}  // namespace focus::formats
