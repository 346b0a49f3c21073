// A small counter-seeded generator: a draw depends on (seed, stream, index) alone, so sampling resumes from an index.
#pragma once

#include <cstdint>

namespace focus::data {

class Random {
 public:
  /// Streams of different (seed, stream, index) are independent for all practical ends.
  Random(uint64_t seed, uint64_t stream, uint64_t index) : state_(mix(mix(mix(seed) + stream) + index)) {}

  /// splitmix64 (Steele, Lea, Flood 2014).
  uint64_t bits() { return mix(state_ += 0x9E3779B97F4A7C15ULL); }
  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1.0p-53; }
  /// Uniform in [0, n), n >= 1, without bias (Lemire 2019).
  int64_t below(int64_t n) {
    const auto range = static_cast<uint64_t>(n);
    unsigned __int128 product = static_cast<unsigned __int128>(bits()) * range;
    if (static_cast<uint64_t>(product) < range) {
      const uint64_t threshold = (0 - range) % range;
      while (static_cast<uint64_t>(product) < threshold) product = static_cast<unsigned __int128>(bits()) * range;
    }
    return static_cast<int64_t>(product >> 64);
  }
  /// Uniform in [low, high].
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }

 private:
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

}  // namespace focus::data
