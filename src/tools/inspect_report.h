// What focus-model inspect found, as text and as JSON.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config_fit.h"
#include "focus/weights/model_shape.h"
#include "tensor_table.h"

namespace focus::tools {

struct Inspection {
  std::filesystem::path path;
  const formats::TensorFile& file;
  weights::ModelShape shape;
  std::vector<TensorRow> rows, other_rows;  // tensors; entries that are none
  std::string fingerprint;
  std::optional<std::string> digest = {};
  std::filesystem::path configs_folder = {};  // empty: none was looked for, or none found
  std::vector<ConfigFit> configs = {};
};

std::string text_report(const Inspection& found);
std::string json_report(const Inspection& found);

}  // namespace focus::tools
