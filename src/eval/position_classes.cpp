#include "position_classes.h"

#include <algorithm>
#include <utility>

namespace focus::eval {
namespace {

bool is_lower(char letter) { return letter >= 'a' && letter <= 'z'; }

bool is_gc(char letter) { return letter == 'G' || letter == 'C' || letter == 'g' || letter == 'c'; }

uint8_t gc_class(int64_t gc, int64_t bases) {
  const double share = static_cast<double>(gc) / static_cast<double>(bases);
  return share < 0.35 ? 0 : share < 0.45 ? 1 : share < 0.55 ? 2 : 3;
}

}  // namespace

std::array<std::vector<uint8_t>, report::kNumGroupings> position_classes(std::string_view sequence) {
  std::array<std::vector<uint8_t>, report::kNumGroupings> classes;
  const std::vector<int64_t> copies = data::last_copies(sequence, report::kCopyWord);
  int64_t gc = 0;
  for (std::size_t t = 1; t < sequence.size(); ++t) {
    constexpr auto kBefore = static_cast<std::size_t>(report::kGcBases);
    gc += is_gc(sequence[t - 1]) ? 1 : 0;
    if (t > kBefore) gc -= is_gc(sequence[t - 1 - kBefore]) ? 1 : 0;
    const uint8_t of[] = {static_cast<uint8_t>(is_lower(sequence[t]) ? 1 : 0),
                          gc_class(gc, static_cast<int64_t>(std::min(t, kBefore))),
                          static_cast<uint8_t>(report::distance_class(copies[t]))};
    for (std::size_t g = 0; g < classes.size(); ++g) classes[g].push_back(of[g]);
  }
  return classes;
}

report::SegmentPositions describe_segment(const data::SampledSegment& segment, int64_t window,
                                          report::Segment& described) {
  std::vector<bool> copied = data::repeated_positions(segment.sequence, window);
  const auto count = static_cast<double>(std::count(copied.begin(), copied.end(), true));
  described.repeat = count / static_cast<double>(segment.sequence.size());
  if (!segment.planted.empty()) copied = segment.planted;
  copied.erase(copied.begin());  // nothing predicts the first base
  described.copied = std::count(copied.begin(), copied.end(), true);
  return {std::move(copied), position_classes(segment.sequence)};
}

}  // namespace focus::eval
