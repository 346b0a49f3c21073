#include "focus/kernels/cuda/quantise.h"

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

class QuantiseKernelTest : public KernelTest {};

double decode(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::nan("");
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return bits & 0x80 ? -size : size;
}
// The nearest of all 127 sizes, by looking at each; of two equally near ones the even one.
uint8_t nearest(double x) {
  if (std::isnan(x)) return 0x7f;
  int best = 0;
  for (int bits = 1; bits < 0x7f; ++bits) {
    const double now = std::abs(std::abs(x) - decode(static_cast<uint8_t>(bits))),
                 before = std::abs(std::abs(x) - decode(static_cast<uint8_t>(best)));
    if (now < before || (now == before && bits % 2 == 0)) best = bits;
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

template <class T>
void check_all(float scale, int64_t size, uint32_t seed) {
  Buffer<T> x(size);
  Buffer<uint8_t> y(size);
  // Sizes from 2^-14 to 2^10: subnormal, normal and saturated.
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> draw(-14, 10);
  for (int64_t i = 0; i < size; ++i) set(x[i], (i % 2 == 0 ? 1 : -1) * std::exp2(draw(generator)));
  kernels::cuda::quantise_e4m3<T>(x, scale, y, size, nullptr);
  finish_kernels();
  for (int64_t i = 0; i < size; ++i)
    ASSERT_EQ(y[i], nearest(static_cast<float>(value(x[i])) * scale)) << i << ": " << value(x[i]);
}

TEST_F(QuantiseKernelTest, EveryValueGoesToTheNearest) {
  uint32_t seed = 0;
  for (const int64_t size : {1, 15, 16, 17, 4096, 4100, 9999}) {
    check_all<float>(1.f, size, ++seed);
    check_all<Bf16>(0.37f, size, ++seed);
  }
}

TEST_F(QuantiseKernelTest, TiesSpecialValuesAndUnalignedArrays) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const float inputs[] = {0.f,   -0.f,  17.f,   19.f, 21.f, -17.f, 0x1p-10f, 0x3p-10f, 0x1.fp-7f, 0x1p-6f,
                          448.f, 449.f, -1e30f, inf,  -inf, nan,   447.9f,   432.f,    416.f,     431.f};
  constexpr int64_t kCount = sizeof(inputs) / sizeof(inputs[0]);
  for (const int64_t offset : {0, 1}) {
    Buffer<float> x(kCount + offset);
    Buffer<uint8_t> y(kCount + offset);
    for (int64_t i = 0; i < kCount; ++i) x[i + offset] = inputs[i];
    kernels::cuda::quantise_e4m3<float>(x + offset, 1.f, y + offset, kCount, nullptr);
    finish_kernels();
    for (int64_t i = 0; i < kCount; ++i) EXPECT_EQ(y[i + offset], nearest(inputs[i])) << inputs[i];
  }
}

}  // namespace
}  // namespace focus::testing
