// Configurations of compressed memory drawn at random, for property tests.
#pragma once

#include <cstdint>

#include "focus/compress/plan/config.h"

namespace focus::testing {

/// A valid configuration for windows of a few dozen bases: stream, unit, visibility, eviction, tail, sinks,
/// entries per k-mer, overrides per layer (blocks 2 and 4), far memory and the rest. The same seed gives the
/// same configuration.
compress::MemoryConfig random_memory(int64_t seed);

}  // namespace focus::testing
