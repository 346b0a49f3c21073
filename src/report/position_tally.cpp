#include "focus/report/position_tally.h"

#include <cmath>

#include "focus/core/error.h"

namespace focus::report {
namespace {

constexpr int64_t kPositionBins = 160;

/// Adds every value to the bin of its position.
void fill(const std::vector<float>& values, const metrics::Binning& binning,
          std::vector<metrics::Bin>& bins) {
  if (bins.empty()) bins = binning.bins;
  for (std::size_t p = 0; p < values.size(); ++p) {
    const int32_t bin = binning.bin_of[p];
    if (bin != metrics::Binning::kNone && !std::isnan(values[p]))
      bins[static_cast<std::size_t>(bin)].total.add(static_cast<double>(values[p]));
  }
}

metrics::Total* of_column(SegmentTotals::Class& entry, int column) {
  if (column == static_cast<int>(Measure::kl)) return &entry.kl;
  if (column == static_cast<int>(Measure::cross_entropy)) return &entry.cross_entropy;
  return column == kDeltaCrossEntropy ? &entry.delta_cross_entropy : nullptr;
}

}  // namespace

PositionTally::PositionTally(int64_t positions, int64_t window)
    : positions_(positions),
      behind_(positions > window ? window : 0),
      by_position_(metrics::bin_by_position(positions, window, kPositionBins)),
      by_offset_(metrics::bin_by_offset(positions, window)) {}

void PositionTally::add(const Segment& segment, const SegmentPositions& where, const PositionValues& own,
                        const std::vector<float>& full_cross_entropy, MethodResult& out) const {
  const auto positions = static_cast<std::size_t>(positions_), behind = static_cast<std::size_t>(behind_);
  const auto check = [&](std::size_t size, const char* what) {
    FOCUS_CHECK(size == 0 || size == positions, "method '", out.name, "', ", what, ": ", size,
                " positions, expected ", positions);
  };
  SegmentTotals& totals = out.segments.emplace_back();
  const auto add_column = [&](int c, const std::vector<float>& values) {
    if (values.empty()) return;
    const auto at = static_cast<std::size_t>(c);
    ColumnTally& column = out.columns[at];
    SegmentTotals::Column& sums = totals.columns[at];
    metrics::QuantileSketch& sorted = segment.repeat >= kRepeatRich ? column.repeat_rich : column.ordinary;
    for (std::size_t p = 0; p < positions; ++p) {
      if (std::isnan(values[p])) continue;
      (p < behind ? sums.before : sums.behind).add(static_cast<double>(values[p]));
      (p < behind ? column.before : sorted).add(values[p]);
      if (c < kNumDistances && p >= behind) column.distribution.add(values[p]);
    }
    fill(values, by_position_, column.by_position);
    fill(values, by_offset_, column.by_offset);
    SegmentTotals::Class none;
    if (of_column(none, c) == nullptr) return;
    for (std::size_t g = 0; g < where.classes.size(); ++g) {
      const std::vector<uint8_t>& classes = where.classes[g];
      for (std::size_t p = behind; p < classes.size(); ++p) {
        if (std::isnan(values[p])) continue;
        if (classes[p] >= totals.classes[g].size()) totals.classes[g].resize(classes[p] + std::size_t{1});
        of_column(totals.classes[g][classes[p]], c)->add(static_cast<double>(values[p]));
      }
    }
  };
  for (std::size_t m = 0; m < kNumMeasures; ++m) check(own.values[m].size(), kMeasureNames[m]);
  check(full_cross_entropy.size(), "full memory's cross entropy");
  check(where.copied.size(), "copied");
  for (const auto& classes : where.classes) check(classes.size(), "classes");
  for (int m = 0; m < kNumMeasures; ++m) add_column(m, own.values[static_cast<std::size_t>(m)]);

  const std::vector<float>& entropy = own.values[static_cast<std::size_t>(Measure::cross_entropy)];
  if (entropy.empty() || full_cross_entropy.empty()) return;
  std::vector<float> difference(positions);
  for (std::size_t p = 0; p < positions; ++p) difference[p] = entropy[p] - full_cross_entropy[p];
  add_column(kDeltaCrossEntropy, difference);
  for (std::size_t p = 0; p < where.copied.size(); ++p) {
    if (where.copied[p] && !std::isnan(difference[p])) totals.copied.add(static_cast<double>(difference[p]));
  }
}

}  // namespace focus::report
