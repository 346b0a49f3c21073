// Walks a field list without changing it.
#pragma once

#include <string>
#include <vector>

#include "focus/config/fields.h"

namespace focus::config {

struct FieldLine {
  std::string path, type, initial, allowed, doc;
  bool is_group = false;
};

/// Every field in order; the elements of a list are described once, with "N" in place of the index.
std::vector<FieldLine> field_lines(const Visit& visit);
/// "[1, 10]", ">= 1", "<= 10" or "" when any value will do.
std::string range_text(IntegerRange range);
std::string range_text(NumberRange range);
/// The shortest text that reads back as the same double.
std::string number_text(double value);

}  // namespace focus::config
