#include "run/run_inputs.h"

#include <algorithm>
#include <filesystem>
#include <string>

namespace focus::train {
namespace {

/// The files a model path stands for: itself, or what a Hugging Face folder holds of a model.
std::vector<std::string> model_files(const std::string& path) {
  if (path.empty()) return {};
  if (!std::filesystem::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const auto kind = entry.path().extension();
    if (entry.is_regular_file() && (kind == ".json" || kind == ".txt" || kind == ".safetensors")) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::vector<InputDigest> digest_inputs(const TrainConfig& config) {
  std::vector<InputDigest> out;
  std::vector<std::string> paths;
  for (const std::string& path : {config.model_config, config.model_checkpoint}) {
    const auto files = model_files(path);
    paths.insert(paths.end(), files.begin(), files.end());
  }
  for (const auto* sampler : {&config.data, &config.validation.data}) {
    for (const auto& source : sampler->sources) {
      if (!source.fasta.empty()) paths.push_back(source.fasta);
      if (!source.jsonl.empty()) paths.push_back(source.jsonl);
      if (!source.hdf5.empty()) paths.push_back(source.hdf5);
    }
  }
  for (const auto& path : paths) {
    bool known = false;
    for (const auto& digest : out) known = known || digest.path == path;
    if (!known) out.push_back(digest_input(path));
  }
  return out;
}

}  // namespace focus::train
