// Needles in a haystack: keys and values written into a segment, and asked for behind it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fidelity_methods.h"
#include "focus/data/segments.h"
#include "focus/eval/fidelity.h"
#include "focus/model/vocabulary.h"

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

/// What a method makes of a key behind what it has read: as many of the likeliest bases as the value has, one
/// after the other, and how many of them are the value's. `streamed` stays as it is.
int64_t right_bases(const Streamed& streamed, const Needle& needle);

}  // namespace focus::eval
