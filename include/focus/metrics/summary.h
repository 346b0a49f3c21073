// Statistics over positions and segments.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "focus/metrics/quantile_sketch.h"

namespace focus::metrics {

/// How values lie over many orders of magnitude: counts in steps of an eighth of a decade.
class Histogram {
 public:
  static constexpr int kPerDecade = 8, kLowest = -8, kHighest = 2, kBins = kPerDecade * (kHighest - kLowest);
  /// Not NaN; what lies beyond the last bin counts there.
  void add(float value);
  /// Values below 10^kLowest, zero among them.
  int64_t below() const { return below_; }
  /// Bin i begins at 10^(kLowest + i / kPerDecade).
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  int64_t below_ = 0;
  std::vector<int64_t> counts_ = std::vector<int64_t>(kBins);
};

/// Sum and count of values; pooled means are sums of sums over sums of counts.
struct Total {
  double sum = 0;
  int64_t count = 0;

  void add(double value) {
    sum += value;
    ++count;
  }
  void add(const Total& other) {
    sum += other.sum;
    count += other.count;
  }
  /// NaN when nothing was added.
  double mean() const;
};

/// NaN throughout (count 0) when there is no value. Quantiles as QuantileSketch.
struct Summary {
  int64_t count = 0;
  double mean = 0, median = 0, q25 = 0, q75 = 0, p99 = 0, max = 0;
};
/// `total` and `values` are of the same values.
Summary summarise(const Total& total, const QuantileSketch& values);

/// A 95% interval; NaN where fewer than two segments leave nothing to resample.
struct Interval {
  double low = 0, high = 0;
};

struct BootstrapOptions {
  int64_t draws = 1000;
  uint64_t seed = 42;
};

/// Expanded percentile bootstrap of the pooled mean (Hesterberg 2015): whole segments are drawn with
/// replacement, as positions of one segment are not independent.
Interval bootstrap_mean(std::span<const Total> segments, const BootstrapOptions& options = {});

/// The share of the lost information that a method recovers, R = 1 - KL(full||method) / KL(full||state only),
/// over the positions behind the first boundary. 1: nothing is lost; 0: as bad as keeping nothing; NaN: state
/// only loses nothing, so there is nothing to recover.
struct Recovered {
  double share = 0;
  Interval interval;
};

/// From the KL totals of both per segment. The bootstrap is paired: method and state only are always taken
/// from the same segments.
Recovered recovered_share(std::span<const Total> method, std::span<const Total> state_only,
                          const BootstrapOptions& options = {});

/// A stretch [begin, end) of positions or of offsets, and the values in it, all segments pooled.
struct Bin {
  int64_t begin = 0, end = 0;
  Total total;
};

/// Empty bins, and of each position of a segment the bin that takes its value.
struct Binning {
  static constexpr int32_t kNone = -1;
  std::vector<Bin> bins;
  std::vector<int32_t> bin_of;  // [position]; kNone: none
};

/// By position: bins of equal width within every window, none across a boundary, about `max_bins` in all.
/// Window w is positions [w * window, (w + 1) * window).
Binning bin_by_position(int64_t positions, int64_t window, int64_t max_bins = 256);

/// By offset behind the last boundary, for the positions behind the first one (position >= window): offset =
/// position % window. Bins are single offsets at first and widen in proportion, as what a boundary costs
/// changes fast right behind it. None when positions <= window.
Binning bin_by_offset(int64_t positions, int64_t window);

}  // namespace focus::metrics
