// Numbers and their ranges as text.
#pragma once

#include <string>

#include "focus/config/fields.h"

namespace focus::config {

/// "[1, 10]", ">= 1", "<= 10" or "" when any value will do.
std::string range_text(IntegerRange range);
std::string range_text(NumberRange range);
/// The shortest text that reads back as the same double.
std::string number_text(double value);

}  // namespace focus::config
