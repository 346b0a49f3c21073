// Needles in a haystack: keys and values written into a segment, and asked for behind it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fidelity_methods.h"
#include "focus/data/segments.h"
#include "focus/eval/fidelity.h"
#include "focus/report/fidelity_result.h"

namespace focus::eval {

struct Needle {
  int64_t begin = 0;  // of the key in the segment; the value follows it
  std::string key, value;
};

/// Where in a segment the questions' needles lie, as shares of its length; a report's rows.
std::vector<double> needle_depths(const NeedleConfig& config);

/// The needles of a segment: first those that are asked for, in the order of needle_depths(), then their
/// near-duplicates. None overlaps another. The same segment and seed give the same ones. InternalError: they
/// take more than a quarter of the segment.
std::vector<Needle> make_needles(const NeedleConfig& config, uint64_t seed,
                                 const data::SampledSegment& segment);

/// Writes them into the segment, in upper case.
void hide(const std::vector<Needle>& needles, data::SampledSegment& segment);

/// What a method makes of a question behind what it has read: as many of the likeliest bases as the value
/// has, one after the other. `streamed` stays as it is.
std::string answer(const Streamed& streamed, const report::Question& question);

}  // namespace focus::eval
