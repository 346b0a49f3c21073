#include "text.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace focus::report {
namespace {

std::string print(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

constexpr const char* kMissing = "\u2013";

}  // namespace

std::string exact(double value) { return std::isnan(value) ? "NA" : print("%.9g", value); }

std::string rounded(double value) {
  if (std::isnan(value)) return kMissing;
  if (value == 0) return "0";
  const double size = std::fabs(value);
  if (size >= 1e-3 && size < 1e5)
    return print(size >= 100 ? "%.1f" : size >= 1 ? "%.3f" : size >= 0.1 ? "%.4f" : "%.5f", value);
  std::string text = print("%.2e", value);
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  return text.substr(0, e + 1) + std::to_string(exponent);
}

std::string rounded_difference(double value) {
  if (std::isnan(value)) return kMissing;
  return std::string(value > 0 ? "+" : "").append(rounded(value));
}

std::size_t width_of(const std::string& text) {
  // UTF-8 continuation bytes take no room.
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string percent(double share) {
  return std::isnan(share) ? kMissing : print(std::fabs(share) < 0.9995 ? "%.1f %%" : "%.2f %%", 100 * share);
}

}  // namespace focus::report
