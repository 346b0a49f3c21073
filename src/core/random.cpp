// Compiled without fused multiply-add (see CMakeLists.txt), and with a logarithm of its own: libm's last bit
// differs between platforms.
#include "focus/core/random.h"

#include <bit>
#include <charconv>
#include <cmath>

#include "focus/core/error.h"

namespace focus {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

/// The finaliser of splitmix64: a bijection; every input bit reaches every output bit.
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

/// Natural logarithm from IEEE basic operations only, so that every platform gives the same bits: x = m 2^e
/// with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1)). Relative error below 1e-15.
double portable_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double f = (m - 1) / (m + 1);
  const double f2 = f * f;
  double series = 0;
  for (int n = 25; n >= 1; n -= 2) series = series * f2 + 1.0 / n;
  return 2 * f * series + exponent * 0.69314718055994530942;
}

}  // namespace

Random::Random(uint64_t seed, uint64_t stream) {
  // Mixing the stream before it meets the seed keeps (seed, stream) and (seed + 1, stream - 1) apart.
  uint64_t counter = mix(seed + kGolden) ^ mix(mix(stream + kGolden) + kGolden);
  for (uint64_t& word : state_) {
    counter += kGolden;
    word = mix(counter);
  }
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

int64_t Random::uniform_integer(int64_t bound) {
  FOCUS_CHECK(bound >= 1, "uniform_integer needs a bound of at least 1, got ", bound);
  return uniform_integer(0, bound - 1);
}

int64_t Random::uniform_integer(int64_t low, int64_t high) {
  FOCUS_CHECK(low <= high, "uniform_integer needs low <= high, got ", low, " and ", high);
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
  if (range == 0) return static_cast<int64_t>(next());
  // Draws from the incomplete last stretch of the 2^64 values would favour small results.
  const uint64_t rejected_below = (0 - range) % range;
  uint64_t draw = next();
  while (draw < rejected_below) draw = next();
  return static_cast<int64_t>(static_cast<uint64_t>(low) + draw % range);
}

double Random::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Random::normal() {
  for (;;) {
    const double u = 2 * uniform() - 1, v = 2 * uniform() - 1;
    const double s = u * u + v * v;
    if (s > 0 && s < 1) return u * std::sqrt(-2 * portable_log(s) / s);
  }
}

std::string Random::save() const {
  std::string text;
  for (const uint64_t word : state_) {
    for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15];
  }
  return text;
}

void Random::restore(std::string_view saved) {
  std::array<uint64_t, 4> words{};
  bool good = saved.size() == 64 && saved.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  for (std::size_t i = 0; good && i < words.size(); ++i) {
    const char* begin = saved.data() + 16 * i;
    good = std::from_chars(begin, begin + 16, words[i], 16).ec == std::errc();
  }
  // xoshiro never leaves the all-zero state.
  if (!good || words == std::array<uint64_t, 4>{}) {
    fail<CheckpointError>("random generator state: expected 64 hexadecimal digits, not all zero, got '",
                          saved.substr(0, 80), "'");
  }
  state_ = words;
}

}  // namespace focus
