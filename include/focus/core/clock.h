// The time of day, for what is written beside results.
#pragma once

#include <string>

namespace focus {

/// "2026-11-27T23:35:10Z". SOURCE_DATE_EPOCH, seconds since 1970, takes the clock's place where it is set
/// (reproducible-builds.org), so that two runs can be compared byte by byte.
std::string utc_now();

}  // namespace focus
