#include "focus/core/clock.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "focus/core/error.h"

namespace focus {

std::string utc_now() {
  std::time_t now = std::time(nullptr);
  if (const char* fixed = std::getenv("SOURCE_DATE_EPOCH")) {
    const char* const end = fixed + std::strlen(fixed);
    const auto [stop, error] = std::from_chars(fixed, end, now);
    if (error != std::errc() || stop != end)
      fail<ConfigError>("SOURCE_DATE_EPOCH: expected seconds since 1970, got '", fixed, "'");
  }
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

}  // namespace focus
