// Random segments for evaluation, and how repetitive a segment is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "focus/data/region.h"
#include "focus/data/sequence_file.h"

namespace focus::data {

struct SegmentOptions {
  int64_t length = 1024;        // bases per segment
  int64_t count = 500;          // segments per region
  int64_t regions = 0;          // so many of the regions that are long enough, drawn at random; 0: all
  uint64_t seed = 42;           // each region draws from its own stream, so adding a region changes no other
  double max_n_fraction = 0.1;  // a candidate with a larger share of N is skipped and counted
};

struct SampledSegment {
  std::string name;      // record
  int64_t begin = 0;     // 0-based
  std::string sequence;  // letters as in the file
  std::vector<bool> planted;  // [base] written again from further left, and told by it; empty: none
};

struct SegmentSample {
  std::vector<SampledSegment> segments;  // by region, then by position
  int64_t skipped_n_rich = 0;            // candidates skipped for too many N
  int64_t skipped_regions = 0;           // regions shorter than a segment
  int64_t overlapping = 0;  // segments that overlap another of their region, because there was no room left
};

/// Draws segments as in the paper's evaluation (§4.3: random, not overlapping, per chromosome): `count` from
/// each region (an empty list means every record), uniformly placed. Segments overlap only where a region has
/// no room for `count` of them. A region with too few places that are free of N gives fewer. DataError when
/// not one segment can be drawn.
SegmentSample sample_segments(const SequenceFile& fasta, const std::vector<Region>& regions,
                              const SegmentOptions& options);

/// Whether position t of `sequence` is one whose preceding `word` letters also ended at least `window` bases
/// before t; as repeat_share(), which counts them.
std::vector<bool> repeated_positions(std::string_view sequence, int64_t window, int64_t word = 32);

/// How far before t the preceding `word` letters of position t ended last, 0 where they did nowhere; as
/// repeat_share(), but at any distance.
std::vector<int64_t> last_copies(std::string_view sequence, int64_t word = 32);

/// Share of positions t of `sequence` whose preceding `word` letters also ended at least `window` bases
/// before t: where only a memory that reaches behind the window can have seen the context before. Exact; case
/// is ignored; words with other letters than ACGT match nothing. word from 1 to 32; O(length) time and
/// memory. "" gives 0.
double repeat_share(std::string_view sequence, int64_t window, int64_t word = 32);

}  // namespace focus::data
