// Into which classes the positions of a segment fall, by its letters alone.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "focus/data/segments.h"
#include "focus/report/fidelity_result.h"

namespace focus::eval {

/// As report::SegmentPositions::classes: of position p, which predicts letter p + 1 of `sequence`, letters as
/// in the file.
std::array<std::vector<uint8_t>, report::kNumGroupings> position_classes(std::string_view sequence);

/// All that letters say of a segment's positions under windows of so many bases. Fills in the shares and
/// counts of `described`.
report::SegmentPositions describe_segment(const data::SampledSegment& segment, int64_t window,
                                          report::Segment& described);

}  // namespace focus::eval
