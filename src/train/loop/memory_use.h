// How much memory this process has taken.
#pragma once

#include <cstdint>

namespace focus::train {

/// Largest resident set of the process so far, mapped weights included.
int64_t peak_resident_bytes();

}  // namespace focus::train
