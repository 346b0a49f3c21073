// Random numbers that are the same on every platform, compiler and thread count: the C++ library's
// distributions are not.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace focus {

/// xoshiro256** (Blackman and Vigna 2021), seeded through splitmix64. Generators of one seed and different
/// streams are independent, so each record, worker or purpose takes a stream of its own instead of sharing
/// one generator in an order that could change. Making one is cheap.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0);

  /// 64 uniform bits.
  uint64_t next();
  /// Uniform in [0, bound), without bias. InternalError unless bound >= 1.
  int64_t uniform_integer(int64_t bound);
  /// Uniform in [low, high], both ends included. InternalError unless low <= high.
  int64_t uniform_integer(int64_t low, int64_t high);
  /// Uniform in [0, 1): a multiple of 2^-53.
  double uniform();
  /// Mean 0, variance 1 (polar method of Marsaglia; no value is kept back, so the state is the whole state).
  double normal();

  /// Fisher-Yates.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[static_cast<std::size_t>(uniform_integer(static_cast<int64_t>(i)))]);
    }
  }

  /// The whole state as 64 hexadecimal digits.
  std::string save() const;
  /// Continues exactly where save() was called. CheckpointError when the text is no state.
  void restore(std::string_view saved);

 private:
  std::array<uint64_t, 4> state_{};
};

}  // namespace focus
