// Which of the shipped model configurations fit the tensors of a file.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "focus/formats/tensor_file.h"

namespace focus::tools {

struct ConfigFit {
  std::filesystem::path path;
  std::string name;                     // model_name; empty where the file cannot be read
  std::string error;                    // why it cannot be read
  std::vector<std::string> mismatches;  // empty: fits
  // What no tensor tells, by the configuration's own keys.
  std::vector<std::pair<std::string, std::string>> settings;
  bool fits() const { return error.empty() && mismatches.empty(); }
};

/// The folder of shipped configurations: configs/models beside the program's folder or up to four folders
/// above. Empty when there is none.
std::filesystem::path shipped_configs();

/// One entry for each *.yml of the folder, those that fit first, then by the number of mismatches. DataError
/// when it cannot be read.
std::vector<ConfigFit> fit_configs(const formats::TensorFile& file, const std::filesystem::path& folder);

/// Keys of `settings` whose values differ between the fitting entries.
std::vector<std::string> differing_settings(const std::vector<ConfigFit>& fits);

}  // namespace focus::tools
