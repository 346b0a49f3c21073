// One value of a metrics line or of a checkpoint's state.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

namespace focus::train {

/// Text, whole number or real number. A whole number stays one through a file, so counters above 2^53 are
/// safe.
using RecordValue = std::variant<std::string, int64_t, double>;

}  // namespace focus::train
