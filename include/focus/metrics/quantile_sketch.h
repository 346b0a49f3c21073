// Quantiles of any number of values in memory that their number does not change.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

namespace focus::metrics {

/// Counts values by sign, exponent and the first 8 bits of their mantissa: 256 buckets per power of two, as
/// in HdrHistogram. A bucket also knows the mean of its values, so that a quantile is off by less than 1/256
/// of the value (0.39 %; below 1e-38, by less than 1e-40), and by nothing where the values around it are
/// alike. All sums are of integers: the order of values and of merges changes nothing. 4 KiB for each power
/// of two that occurs.
class QuantileSketch {
 public:
  QuantileSketch() { place_.fill(kNone); }
  /// Not NaN.
  void add(float value);
  void add(const QuantileSketch& other);

  int64_t count() const { return count_; }
  /// Interpolated linearly between neighbours (the default of NumPy and R); `share` from 0 to 1. NaN when
  /// nothing was added.
  double quantile(double share) const;
  /// Exact; NaN when nothing was added.
  double max() const {
    return count_ > 0 ? static_cast<double>(max_) : std::numeric_limits<double>::quiet_NaN();
  }

 private:
  struct Bucket {
    int64_t count = 0;
    int64_t rest = 0;  // sum of the mantissa bits that the bucket's number leaves out
  };
  static constexpr int kBucketBits = 8, kRestBits = 23 - kBucketBits, kPages = 1 << 9;
  static constexpr std::size_t kPerPage = std::size_t{1} << kBucketBits;
  static constexpr uint16_t kNone = 0xFFFF;

  Bucket& bucket(uint32_t number);
  double mean_of(uint32_t number, const Bucket& bucket) const;

  std::array<uint16_t, kPages> place_{};  // of a page, a power of two of one sign, among the buckets
  std::vector<Bucket> buckets_;
  int64_t count_ = 0;
  float max_ = -std::numeric_limits<float>::infinity();
};

}  // namespace focus::metrics
