#include "focus/ops/fp8_linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "focus/core/error.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;

/// Every finite e4m3 number from its bits: sign, 4 exponent bits with bias 7, 3 mantissa bits; 0x7f is NaN.
std::vector<double> all_e4m3() {
  std::vector<double> out;
  for (int bits = 0; bits < 0x7f; ++bits) {
    const int exponent = bits >> 3, mantissa = bits & 7;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    out.push_back(magnitude);
    if (magnitude > 0) out.push_back(-magnitude);
  }
  return out;
}

/// The nearest e4m3 number, ties to the even mantissa, saturating: by search, independent of any library's
/// conversion.
double nearest_e4m3(double value) {
  static const std::vector<double> numbers = all_e4m3();
  double best = 0, distance = std::fabs(value);
  for (const double candidate : numbers) {
    const double d = std::fabs(candidate - value);
    const auto even = [](double x) {
      int exponent = 0;
      const double fraction = std::frexp(std::fabs(x), &exponent);
      const double step = std::ldexp(1.0, std::max(exponent - 4, -9));
      return std::fmod(std::ldexp(fraction, exponent) / step, 2.0) == 0.0;
    };
    if (d < distance || (d == distance && even(candidate) && !even(best))) {
      best = candidate;
      distance = d;
    }
  }
  return best;
}

TEST(Fp8LinearTest, RoundsToTheNearestE4m3AndSaturates) {
  at::manual_seed(1);
  const Tensor x = at::cat({at::randn({400}) * at::logspace(-4, 3, 400),
                            at::tensor({0.0F, 447.9F, 448.0F, 500.0F, -1e6F, 1.0F / 1024, 17.0F, 19.0F})});
  const Tensor rounded = to_e4m3(x, 1.0).to(at::kDouble);
  for (int64_t i = 0; i < x.numel(); ++i)
    EXPECT_EQ(rounded[i].item<double>(), nearest_e4m3(std::clamp(x[i].item<double>(), -448.0, 448.0)))
        << x[i].item<double>();
  EXPECT_EQ(to_e4m3(at::tensor({3.0F}), 200.0).to(at::kFloat).item<float>(), 448.0F);
  EXPECT_THROW(to_e4m3(x, 0.0), WeightsError);
  EXPECT_THROW(to_e4m3(x, std::nan("")), WeightsError);
}

TEST(Fp8LinearTest, IsTheExactProductOfTheRoundedFactors) {
  at::manual_seed(2);
  const double input_scale = 37.5, weight_scale = 611.0;
  const Tensor x = at::randn({2, 5, 33}), w = at::randn({1030, 33}) * 0.3, bias = at::randn({1030});
  const Tensor rounded_w = to_e4m3(w, weight_scale);
  const Tensor exact = at::matmul(to_e4m3(x, input_scale).to(at::kDouble), rounded_w.to(at::kDouble).t()) /
                       (input_scale * weight_scale);
  EXPECT_LT(testing::relative_rms(fp8_linear(x, rounded_w, {}, input_scale, weight_scale), exact), 1e-6);
  EXPECT_LT(testing::relative_rms(fp8_linear(x, rounded_w, bias, input_scale, weight_scale), exact + bias),
            1e-6);
  // It is not the unrounded product.
  EXPECT_GT(testing::relative_rms(fp8_linear(x, rounded_w, {}, input_scale, weight_scale), at::linear(x, w)),
            1e-2);
}

TEST(Fp8LinearTest, InBf16TheSumIsRoundedOnce) {
  at::manual_seed(3);
  const Tensor x = at::randn({7, 48}).to(at::kBFloat16), w = at::randn({20, 48}).to(at::kBFloat16);
  for (const auto& [input_scale, weight_scale] : {std::pair{16.0, 64.0}, std::pair{11.3, 90.0}}) {
    const Tensor rounded_w = to_e4m3(w, weight_scale);
    const Tensor exact = at::matmul(to_e4m3(x, input_scale).to(at::kDouble), rounded_w.to(at::kDouble).t()) /
                         (input_scale * weight_scale);
    const Tensor y = fp8_linear(x, rounded_w, {}, input_scale, weight_scale);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::equal(y, exact.to(at::kFloat).to(at::kBFloat16))) << input_scale;
  }
}

TEST(Fp8LinearTest, GradientPassesStraightThroughTheRounding) {
  at::manual_seed(4);
  Tensor x = at::randn({6, 9}).set_requires_grad(true);
  const Tensor w = at::randn({12, 9}), rounded_w = to_e4m3(w, 50.0), weighting = at::randn({6, 12});
  (fp8_linear(x, rounded_w, {}, 20.0, 50.0) * weighting).sum().backward();
  EXPECT_LT(testing::max_difference(x.grad(), at::matmul(weighting, rounded_w.to(at::kFloat) / 50.0)), 1e-4);
}

TEST(Fp8LinearTest, RefusesOtherWeights) {
  EXPECT_THROW(fp8_linear(at::ones({2, 4}), at::ones({3, 4}), {}, 1, 1), ShapeError);
  EXPECT_THROW(fp8_linear(at::ones({2, 5}), to_e4m3(at::ones({3, 4}), 1), {}, 1, 1), ShapeError);
}

struct Fp8Shape {
  int64_t rows, in, out;
};
class Fp8OnDeviceTest : public testing::OnDeviceTest<Fp8Shape> {};

TEST_P(Fp8OnDeviceTest, UnitsAndEmulationGiveTheSameUpToRounding) {
  at::manual_seed(6);
  const auto [rows, in, out] = shape();
  const double input_scale = 37.0, weight_scale = 64.0;
  const Tensor x = at::randn({rows, 1, in}).to(type()), weight = at::randn({out, in}).to(type()),
               bias = at::randn({out}).to(type());
  const auto there = [&](const Tensor& t) { return t.to(device()); };
  const Tensor rounded = to_e4m3(weight, weight_scale);
  EXPECT_TRUE(at::equal(to_e4m3(there(weight), weight_scale).to(at::kFloat).cpu(), rounded.to(at::kFloat)));
  const Tensor input = to_e4m3(x, input_scale).to(at::kDouble) / input_scale,
               wide = rounded.to(at::kDouble) / weight_scale;
  for (const bool with_bias : {false, true}) {
    const Tensor b = with_bias ? bias.to(at::kDouble) : at::zeros({out}, at::kDouble),
                 exact = at::linear(input, wide, b), size = at::linear(input.abs(), wide.abs(), b.abs());
    const Tensor y =
        fp8_linear(there(x), there(rounded), with_bias ? there(bias) : Tensor(), input_scale, weight_scale);
    EXPECT_EQ(y.scalar_type(), type());
    // One rounding of bf16, whose sums are fp32; fp32 rounds every term of them.
    EXPECT_LE(testing::error_in_roundings(y, exact, size),
              type() == at::kBFloat16 ? 1.05 : static_cast<double>(in) + 4)
        << with_bias;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Fp8OnDeviceTest,
                         ::testing::Combine(::testing::Values(Fp8Shape{1, 16, 32}, Fp8Shape{5, 64, 48},
                                                              Fp8Shape{3, 20, 16}, Fp8Shape{2, 32, 9}),
                                            testing::kDevices, ::testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace focus::ops
