#include "focus/core/units.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <span>

#include "focus/core/error.h"

namespace focus {
namespace {

std::string print(const char* format, double value) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, value);
  return buffer.data();
}

struct Suffix {
  std::string_view name;  // lower case
  double factor;
};

int64_t parse(std::string_view text, std::span<const Suffix> suffixes, const char* expected, bool whole) {
  const auto refuse = [&] { fail<ConfigError>("'", text, "': expected ", expected); };
  std::string digits, suffix;
  for (const char c : text) {
    const bool is_digit = c >= '0' && c <= '9';
    if (suffix.empty() && (is_digit || c == '.')) {
      digits += c;
    } else if (suffix.empty() && c == ',' && !digits.empty()) {
      continue;
    } else if (c >= 'A' && c <= 'Z') {
      suffix += static_cast<char>(c - 'A' + 'a');
    } else if (c >= 'a' && c <= 'z') {
      suffix += c;
    } else if (c != ' ' || digits.empty()) {
      refuse();
    }
  }
  const auto found =
      std::find_if(suffixes.begin(), suffixes.end(), [&](const Suffix& s) { return s.name == suffix; });
  if (found == suffixes.end() || digits.empty()) refuse();

  if (digits.find('.') == std::string::npos && found->factor == 1) {
    // Whole numbers stay integers: a double would round those above 2^53.
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || stop != digits.data() + digits.size()) refuse();
    return value;
  }
  double value = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || stop != digits.data() + digits.size()) refuse();
  const double scaled = std::round(value * found->factor);
  if (!(scaled < 0x1p63)) refuse();
  if (whole && std::abs(scaled - value * found->factor) > 1e-6) refuse();
  return static_cast<int64_t>(scaled);
}

}  // namespace

std::string format_bytes(int64_t num_bytes) {
  constexpr std::array kNames = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(num_bytes);
  if (std::abs(value) < 1024) return std::to_string(num_bytes) + " B";
  std::size_t step = 0;
  // 1023.95 would print as "1024.0".
  for (value /= 1024; std::abs(value) >= 1023.95 && step + 1 < kNames.size(); ++step) value /= 1024;
  return print("%.1f ", value) + kNames[step];
}

std::string format_count(int64_t count) {
  std::string text = std::to_string(count);
  const std::ptrdiff_t first = count < 0 ? 1 : 0;
  for (std::ptrdiff_t at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > first; at -= 3)
    text.insert(static_cast<std::size_t>(at), 1, ',');
  return text;
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  if (seconds < 9.995) return print("%.2f s", seconds);
  if (seconds < 59.95) return print("%.1f s", seconds);
  const auto pair = [](double big, const char* big_unit, double small, const char* small_unit) {
    return print("%.0f", big) + big_unit + print(" %02.0f", small) + small_unit;
  };
  double minutes = std::floor(std::round(seconds) / 60);
  if (minutes < 60) return pair(minutes, "m", std::round(seconds) - 60 * minutes, "s");
  minutes = std::round(seconds / 60);
  const double hours = std::floor(minutes / 60);
  if (hours < 48) return pair(hours, "h", minutes - 60 * hours, "m");
  const double whole_hours = std::round(seconds / 3600);
  const double days = std::floor(whole_hours / 24);
  return pair(days, "d", whole_hours - 24 * days, "h");
}

int64_t parse_bytes(std::string_view text) {
  static constexpr Suffix kSuffixes[] = {{"", 1},         {"b", 1},        {"k", 0x1p10},   {"m", 0x1p20},
                                         {"g", 0x1p30},   {"t", 0x1p40},   {"kib", 0x1p10}, {"mib", 0x1p20},
                                         {"gib", 0x1p30}, {"tib", 0x1p40}, {"kb", 1e3},     {"mb", 1e6},
                                         {"gb", 1e9},     {"tb", 1e12}};
  return parse(text, kSuffixes, "a size in bytes such as 4096, 512M or 20G", false);
}

int64_t parse_count(std::string_view text) {
  static constexpr Suffix kSuffixes[] = {{"", 1}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}};
  return parse(text, kSuffixes, "a whole number such as 1024, 1,000,000, 100k or 1.5M", true);
}

}  // namespace focus
