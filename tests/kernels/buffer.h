// Memory that CUDA kernels and the tests' own code both reach.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::testing {

using kernels::Bf16;

// One pair of definitions for the emulation (emulated_memory.cpp) and one for a card (card_memory.cpp).
/// Exactly `bytes` bytes, so that a step beyond them is seen, all bits set: NaN in every type of float.
void* allocate_for_kernels(std::size_t bytes);
void release_for_kernels(void* data);
/// Waits for all kernels; throws where one failed.
void finish_kernels();
/// Why kernels cannot run, or an empty string.
std::string no_kernels();

inline double value(float x) { return x; }
inline double value(double x) { return x; }
inline double value(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}
inline void set(float& to, double x) { to = static_cast<float>(x); }
inline void set(Bf16& to, double x) {  // to nearest, ties to even
  const float narrow = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof(bits));
  to = std::isnan(narrow) ? Bf16{0x7fff} : static_cast<Bf16>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
/// Half a unit in the last place of 1.
template <class T>
inline constexpr double kRounding = sizeof(T) == 2 ? 0x1p-8 : 0x1p-24;

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(allocate_for_kernels(static_cast<std::size_t>(size) * sizeof(T)))),
        size_(size) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release_for_kernels(data_); }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }
  operator T*() { return data_; }
  operator const T*() const { return data_; }
  T* get() { return data_; }
  int64_t size() const { return size_; }
  void fill(T with) { std::fill(data_, data_ + size_, with); }
  /// Uniform numbers; the same ones for a seed.
  Buffer& randomise(uint32_t seed, double low = -1, double high = 1) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> draw(low, high);
    for (int64_t i = 0; i < size_; ++i) set(data_[i], draw(generator));
    return *this;
  }

 private:
  T* data_;
  int64_t size_;
};

/// Expects |got - exact| <= bound, also where got is NaN.
inline void expect_within(double got, double exact, double bound, const std::string& where) {
  EXPECT_TRUE(std::abs(got - exact) <= bound)
      << where << ": got " << got << ", expected " << exact << " +- " << bound;
}

/// Skipped with the reason where there is no device.
class KernelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = no_kernels(); !reason.empty()) GTEST_SKIP() << reason;
  }
};
template <class Param>
class KernelTestWithParam : public KernelTest, public ::testing::WithParamInterface<Param> {};

}  // namespace focus::testing
