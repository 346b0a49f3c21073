#include "focus/weights/model_files.h"

#include <algorithm>
#include <filesystem>

#include "focus/core/error.h"

namespace focus::weights {
namespace {

namespace fs = std::filesystem;

/// What is read of a Hugging Face folder; other files that lie there are nobody's input.
bool is_read(const std::string& name, bool with_weights) {
  for (const char* known :
       {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt"}) {
    if (name == known) return true;
  }
  return with_weights && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"));
}

void add_folder(const std::string& what, const fs::path& folder, bool with_weights,
                std::vector<NamedPath>& out) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (is_read(entry->path().filename().string(), with_weights) && entry->is_regular_file(ignored))
      found.push_back(entry->path());
  }
  std::sort(found.begin(), found.end());
  for (const fs::path& path : found) out.push_back({what, path});
}

void add(const std::string& what, const std::string& path, bool with_weights, std::vector<NamedPath>& out) {
  std::error_code ignored;
  if (path.empty()) return;
  if (fs::is_directory(path, ignored)) return add_folder(what, path, with_weights, out);
  if (path.ends_with(".json")) {  // an index among its shards, or a configuration beside its tokenizer
    const fs::path folder = fs::path(path).parent_path();
    if (!is_read(fs::path(path).filename().string(), with_weights)) out.push_back({what, path});
    return add_folder(what, folder.empty() ? "." : folder, with_weights, out);
  }
  const auto part = [&](int number) { return concat(path, ".part", number); };
  if (fs::exists(path, ignored) || !fs::exists(part(0), ignored)) return out.push_back({what, path});
  for (int number = 0; fs::exists(part(number), ignored); ++number) out.push_back({what, part(number)});
}

}  // namespace

std::vector<NamedPath> model_files(const std::string& config_path, const std::string& checkpoint_path) {
  std::vector<NamedPath> out;
  add("model config", config_path, false, out);
  add("checkpoint", checkpoint_path, true, out);
  return out;
}

}  // namespace focus::weights
