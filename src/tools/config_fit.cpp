#include "config_fit.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/model/config.h"
#include "focus/weights/model_shape.h"

namespace focus::tools {
namespace {

namespace fs = std::filesystem;

std::vector<std::pair<std::string, std::string>> settings_of(const model::ModelConfig& c) {
  const auto flag = [](bool value) { return std::string(value ? "True" : "False"); };
  return {{"rotary_emb_scaling_factor", concat(c.rotary_scaling)},
          {"max_seqlen", concat(c.max_length)},
          {"column_split", flag(c.column_split)},
          {"evo2_style_activations", flag(c.evo2_activations)},
          {"eps", concat(c.eps)},
          {"use_fp8_input_projections", flag(c.fp8_input_projections)}};
}

}  // namespace

fs::path shipped_configs() {
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int level = 0; level < 5 && !folder.empty(); ++level, folder = folder.parent_path()) {
    if (fs::is_directory(folder / "configs" / "models", error)) return folder / "configs" / "models";
  }
  return {};
}

std::vector<ConfigFit> fit_configs(const formats::TensorFile& file, const fs::path& folder) {
  std::vector<fs::path> paths;
  try {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".yml" || entry.path().extension() == ".yaml")
        paths.push_back(entry.path());
    }
  } catch (const fs::filesystem_error& e) {
    fail<DataError>("cannot read the folder of model configurations '", folder.string(),
                    "': ", e.code().message());
  }
  if (paths.empty()) fail<DataError>("'", folder.string(), "' holds no model configuration (*.yml)");
  std::sort(paths.begin(), paths.end());
  std::vector<ConfigFit> out;
  for (const fs::path& path : paths) {
    ConfigFit fit;
    fit.path = path;
    try {
      const model::ModelConfig config = model::read_model_config(path.string());
      fit.name = config.name;
      fit.mismatches = weights::mismatches(file, config);
      fit.settings = settings_of(config);
    } catch (const ConfigError& e) {
      fit.error = e.what();
    }
    out.push_back(std::move(fit));
  }
  std::stable_sort(out.begin(), out.end(), [](const ConfigFit& a, const ConfigFit& b) {
    return std::pair(!a.error.empty(), a.mismatches.size()) <
           std::pair(!b.error.empty(), b.mismatches.size());
  });
  return out;
}

std::vector<std::string> differing_settings(const std::vector<ConfigFit>& fits) {
  std::vector<std::string> out;
  const ConfigFit* first = nullptr;
  for (const ConfigFit& fit : fits) {
    if (!fit.fits()) continue;
    if (first == nullptr) first = &fit;
    for (std::size_t i = 0; i < fit.settings.size(); ++i) {
      const std::string& key = fit.settings[i].first;
      if (fit.settings[i].second != first->settings[i].second &&
          std::find(out.begin(), out.end(), key) == out.end())
        out.push_back(key);
    }
  }
  return out;
}

}  // namespace focus::tools
