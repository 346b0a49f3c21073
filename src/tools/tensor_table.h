// The tensors of a file as rows to print, equal ones of several layers in one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "focus/formats/tensor_file.h"

namespace focus::tools {

struct TensorRow {
  std::string name;  // "blocks.{0,4,7-9}.filter.h" where it stands for several
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t count = 1, num_bytes = 0;  // of all together
};

/// Rows of the tensors whose names match `glob` (* and ?; empty: all), in file order. With `collapse`, names
/// that differ only in their first number between dots share a row when dtype and shape agree.
std::vector<TensorRow> tensor_rows(const formats::TensorFile& file, const std::string& glob, bool collapse);
/// The same for the entries that are no tensors; their dtype says what they are.
std::vector<TensorRow> opaque_rows(const formats::TensorFile& file, const std::string& glob, bool collapse);

struct Total {
  int64_t count = 0, elements = 0, num_bytes = 0;
};
/// By dtype.
std::map<std::string, Total> totals(const formats::TensorFile& file);

/// "0-2,4" of ascending numbers.
std::string ranges(const std::vector<int64_t>& numbers);
/// The text with control characters replaced: names in a file may hold anything, and a terminal obeys it.
std::string visible(const std::string& text);

}  // namespace focus::tools
