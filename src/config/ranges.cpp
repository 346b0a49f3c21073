#include "ranges.h"

#include <charconv>
#include <limits>

#include "focus/core/error.h"

namespace focus::config {
namespace {

template <class T>
std::string bounds_text(bool has_min, bool has_max, const T& min, const T& max) {
  if (has_min && has_max) return concat("[", min, ", ", max, "]");
  if (has_min) return ">= " + min;
  if (has_max) return "<= " + max;
  return "";
}

}  // namespace

std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

std::string range_text(IntegerRange range) {
  return bounds_text(range.min != std::numeric_limits<int64_t>::min(),
                     range.max != std::numeric_limits<int64_t>::max(), std::to_string(range.min),
                     std::to_string(range.max));
}
std::string range_text(NumberRange range) {
  return bounds_text(range.min != -std::numeric_limits<double>::infinity(),
                     range.max != std::numeric_limits<double>::infinity(), number_text(range.min),
                     number_text(range.max));
}

}  // namespace focus::config
