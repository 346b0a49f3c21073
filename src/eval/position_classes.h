// Into which classes the positions of a segment fall, by its letters alone.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "focus/report/fidelity_result.h"

namespace focus::eval {

/// As report::Segment::classes: of position p, which predicts letter p + 1 of `sequence`, letters as in the
/// file.
std::array<std::vector<uint8_t>, report::kNumGroupings> position_classes(std::string_view sequence);

}  // namespace focus::eval
