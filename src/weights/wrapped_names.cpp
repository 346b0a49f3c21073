#include "focus/weights/wrapped_names.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "focus/core/error.h"
#include "focus/core/log.h"

namespace focus::weights {
namespace {

using formats::OpaqueEntry;
using formats::TensorFile;
using formats::TensorView;

/// Every model has one of these, and no other tensor is called so.
constexpr std::string_view kEmbeddings[] = {"embedding_layer.weight", "model.embed_tokens.weight"};

/// Another file under shorter names; its tensors are views of the other's.
class Unwrapped final : public TensorFile {
 public:
  Unwrapped(std::shared_ptr<TensorFile> whole, std::size_t prefix_size) : whole_(std::move(whole)) {
    metadata_ = whole_->metadata();
    format_ = whole_->format();
    files_ = whole_->files();
    for (TensorView tensor : whole_->tensors()) {
      tensor.name.erase(0, prefix_size);
      add_tensor(std::move(tensor), format_);
    }
    for (OpaqueEntry entry : whole_->opaque()) {
      entry.name.erase(0, prefix_size);
      add_opaque(std::move(entry), format_);
    }
  }

 private:
  std::shared_ptr<TensorFile> whole_;
};

}  // namespace

std::string name_prefix(const TensorFile& file) {
  std::string shortest;
  for (const TensorView& tensor : file.tensors()) {
    for (const std::string_view embedding : kEmbeddings) {
      if (tensor.name == embedding) return "";
      if (!tensor.name.ends_with(embedding)) continue;
      const std::string prefix = tensor.name.substr(0, tensor.name.size() - embedding.size());
      if (prefix.ends_with('.') && (shortest.empty() || prefix.size() < shortest.size())) shortest = prefix;
    }
  }
  return shortest;
}

std::vector<std::string> names_without_prefix(const TensorFile& file, const std::string& prefix) {
  std::vector<std::string> names;
  for (const TensorView& tensor : file.tensors()) {
    if (!tensor.name.starts_with(prefix)) names.push_back(tensor.name);
  }
  for (const OpaqueEntry& entry : file.opaque()) {
    if (!entry.name.starts_with(prefix)) names.push_back(entry.name);
  }
  return names;
}

std::shared_ptr<TensorFile> without_prefix(std::shared_ptr<TensorFile> file, const std::string& prefix) {
  return std::make_shared<Unwrapped>(std::move(file), prefix.size());
}

std::shared_ptr<TensorFile> open_model_file(const std::filesystem::path& path) {
  auto file = TensorFile::open(path);
  const std::string prefix = name_prefix(*file);
  if (prefix.empty()) return file;
  const std::vector<std::string> others = names_without_prefix(*file, prefix);
  if (!others.empty()) {
    constexpr std::size_t kShown = 3;
    std::string listed, drop;
    for (std::size_t i = 0; i < std::min(kShown, others.size()); ++i) {
      listed += concat(i > 0 ? ", '" : "'", others[i], "'");
      drop += concat(" --drop '", others[i], "'");
    }
    if (others.size() > kShown) {
      listed += concat(" and ", others.size() - kShown, " more");
      drop += " ...";
    }
    fail<WeightsError>("'", path.string(), "': the model's names begin with '", prefix, "', but ",
                       others.size(), " other entries do not: ", listed,
                       "; take the model out with: focus-model convert '", path.string(),
                       "' NEW.safetensors --strip-prefix '", prefix, "'", drop);
  }
  log::info(concat("'", path.string(), "': all names begin with '", prefix, "', which is taken off"));
  return without_prefix(std::move(file), prefix);
}

}  // namespace focus::weights
