// Copies written into segments, whose bases only what still knows their source can predict.
#pragma once

#include <cstdint>

#include "focus/data/segments.h"
#include "focus/eval/fidelity.h"

namespace focus::eval {

/// Writes `config.size` bases again at the segment's end, and marks in SampledSegment::planted what of them
/// the source tells: bases that were copied, none of the first report::kCopyWord, by which a model learns
/// that this is a copy. The same segment and seed give the same copy. InternalError: the segment is shorter
/// than distance and size together.
void plant(const PlantedConfig& config, uint64_t seed, data::SampledSegment& segment);

}  // namespace focus::eval
