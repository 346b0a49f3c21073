#include "focus/metrics/quantile_sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace focus::metrics {

QuantileSketch::Bucket& QuantileSketch::bucket(uint32_t number) {
  uint16_t& place = place_[number >> kBucketBits];
  if (place == kNone) {
    place = static_cast<uint16_t>(buckets_.size() / kPerPage);
    buckets_.resize(buckets_.size() + kPerPage);
  }
  return buckets_[place * kPerPage + (number & (kPerPage - 1))];
}

void QuantileSketch::add(float value) {
  const auto bits = std::bit_cast<uint32_t>(value + 0.0F);  // one zero for both
  Bucket& at = bucket(bits >> kRestBits);
  ++at.count;
  at.rest += bits & ((1U << kRestBits) - 1);
  ++count_;
  max_ = std::max(max_, value);
}

void QuantileSketch::add(const QuantileSketch& other) {
  for (uint32_t page = 0; page < kPages; ++page) {
    if (other.place_[page] == kNone) continue;
    const Bucket* from = other.buckets_.data() + other.place_[page] * kPerPage;
    Bucket* to = &bucket(page << kBucketBits);
    for (std::size_t i = 0; i < kPerPage; ++i) {
      to[i].count += from[i].count;
      to[i].rest += from[i].rest;
    }
  }
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
}

// Within a bucket all values have one exponent, so that their mean is that of their mantissas.
double QuantileSketch::mean_of(uint32_t number, const Bucket& at) const {
  const uint32_t bits = number << kRestBits;
  const int exponent = std::max(1, static_cast<int>((bits >> 23) & 0xFF));
  const double rest = static_cast<double>(at.rest) / static_cast<double>(at.count);
  const double low = static_cast<double>(std::bit_cast<float>(bits));
  return low + std::copysign(std::ldexp(rest, exponent - 150), low);
}

double QuantileSketch::quantile(double share) const {
  if (count_ == 0) return std::numeric_limits<double>::quiet_NaN();
  const double place = share * static_cast<double>(count_ - 1);
  const auto below = static_cast<int64_t>(place);
  double low = 0, high = 0;
  int64_t seen = 0;
  // True once both neighbours are found.
  const auto visit = [&](uint32_t number) {
    const uint16_t page = place_[number >> kBucketBits];
    const Bucket& at = buckets_[page * kPerPage + (number & (kPerPage - 1))];
    if (at.count == 0) return false;
    if (seen + at.count > below) {
      high = mean_of(number, at);
      if (seen <= below) low = high;
      if (seen + at.count > below + 1 || seen + at.count == count_ || seen > below) return true;
    }
    seen += at.count;
    return false;
  };
  // In the order of the values: negative ones from the largest exponent down, then the others up.
  constexpr uint32_t kSign = kPages / 2;
  for (uint32_t i = 0; i < kPages; ++i) {
    const bool negative = i < kSign;
    const uint32_t page = negative ? kPages - 1 - i : i - kSign;
    if (place_[page] == kNone) continue;
    for (uint32_t slot = 0; slot < kPerPage; ++slot) {
      if (visit((page << kBucketBits) + (negative ? static_cast<uint32_t>(kPerPage) - 1 - slot : slot)))
        return high == low ? low : low + (place - static_cast<double>(below)) * (high - low);
    }
  }
  return high;
}

}  // namespace focus::metrics
