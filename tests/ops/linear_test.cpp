#include "focus/ops/linear.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "focus/core/error.h"
#include "support/counting_allocator.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::max_difference;

struct Shape {
  int64_t rows, in, out;
};
struct Types {
  at::ScalarType x, weight;
};

class LinearTest : public ::testing::TestWithParam<std::tuple<Shape, Types, bool>> {};

/// The largest error in units of what one rounding to the type can cost, beside what summing in fp32 may.
double error_in_roundings(const Tensor& got, const Tensor& exact) {
  const bool bf16 = got.scalar_type() == at::kBFloat16;
  const Tensor unit = exact.abs() * (bf16 ? 0x1p-8 : 0x1p-24) + 2e-6;
  return ((got.to(at::kDouble) - exact).abs() / unit).max().item<double>();
}

TEST_P(LinearTest, EqualsTheExactProductRoundedOnce) {
  const auto [shape, types, with_bias] = GetParam();
  const auto [rows, in, out] = shape;
  at::manual_seed(1);
  const Tensor x = at::randn({rows, in}).to(types.x),
               weight = (at::randn({out, in}) / std::sqrt(static_cast<double>(in))).to(types.weight),
               bias = with_bias ? at::randn({out}).to(types.weight) : Tensor();
  const Tensor exact =
      at::linear(x.to(at::kDouble), weight.to(at::kDouble), with_bias ? bias.to(at::kDouble) : Tensor());
  const Tensor got = ops::linear(x, weight, bias);
  EXPECT_EQ(got.scalar_type(), types.x);
  ASSERT_EQ(got.sizes(), exact.sizes());
  EXPECT_LT(error_in_roundings(got, exact), types.x == at::kBFloat16 ? 1.01 : 4.0);
  EXPECT_LT(error_in_roundings(linear_reference(x, weight, bias), exact),
            types.x == at::kBFloat16 ? 2.01 : 4.0);
}

INSTANTIATE_TEST_SUITE_P(
    OddSizes, LinearTest,
    ::testing::Combine(::testing::Values(Shape{1, 1, 1}, Shape{1, 31, 7}, Shape{2, 33, 5}, Shape{3, 64, 9},
                                         Shape{4, 129, 4}, Shape{5, 200, 3}, Shape{7, 1025, 66},
                                         Shape{1, 4096, 130}, Shape{33, 95, 37}, Shape{80, 70, 300}),
                       ::testing::Values(Types{at::kBFloat16, at::kBFloat16},
                                         Types{at::kFloat, at::kBFloat16}, Types{at::kFloat, at::kFloat}),
                       ::testing::Bool()));

TEST(LinearTest, KeepsLeadingDimensionsAndReadsStridedInput) {
  at::manual_seed(2);
  const Tensor weight = at::randn({6, 10}), x = at::randn({2, 10, 3}).transpose(1, 2);
  const Tensor y = ops::linear(x, weight, {});
  ASSERT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, 6}));
  EXPECT_LT(max_difference(y, at::linear(x, weight)), 1e-5);
  EXPECT_LT(max_difference(ops::linear(x[0][0], weight, {}), y[0][0]), 1e-6);
  const Tensor strided = at::randn({10, 6}).t();
  EXPECT_LT(max_difference(ops::linear(x, strided, {}), at::linear(x, strided)), 1e-5);
  EXPECT_EQ(ops::linear(x.narrow(1, 0, 0), weight, {}).sizes(), (std::vector<int64_t>{2, 0, 6}));
}

TEST(LinearTest, AResidualAndAGateAreRoundedAsIfApart) {
  at::manual_seed(5);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t rows : {1, 3, 70}) {
      const auto draw = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(type); };
      const Tensor x = draw({rows, 95}), weight = draw({37, 95}), bias = draw({37}), up = draw({37, 95}),
                   residual = draw({rows, 37});
      const Tensor y = ops::linear(x, weight, bias);
      EXPECT_TRUE(at::equal(ops::linear(x, weight, bias, residual), residual + y)) << type << rows;
      EXPECT_TRUE(at::equal(ops::linear(x, weight, bias, residual.t().contiguous().t()), residual + y));
      EXPECT_TRUE(at::equal(ops::linear(x, weight, bias, residual[0]), residual[0] + y));
      for (const Gate act : {Gate::identity, Gate::silu}) {
        EXPECT_TRUE(
            at::equal(ops::gated_linear(x, weight, bias, up, {}, act), gated(y, ops::linear(x, up, {}), act)))
            << type << rows;
      }
    }
  }
}

TEST(LinearTest, ARowDependsNeitherOnThreadsNorOnTheOtherRows) {
  at::manual_seed(3);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor x = at::randn({4, 513}).to(type), weight = at::randn({301, 513}).to(type);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const Tensor one = ops::linear(x, weight, {});
    at::set_num_threads(3);
    const Tensor three = ops::linear(x, weight, {});
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(one, three));
    for (int64_t row = 0; row < 4; ++row)
      EXPECT_TRUE(at::equal(ops::linear(x[row], weight, {}), one[row])) << row;
  }
}

TEST(LinearTest, SpecialValuesPassThrough) {
  const float inf = std::numeric_limits<float>::infinity();
  Tensor x = at::zeros({1, 40}, at::kBFloat16), weight = at::ones({3, 40}, at::kBFloat16);
  x[0][39] = 1.0;
  weight[0][39] = inf;
  weight[1][39] = std::numeric_limits<float>::quiet_NaN();
  const Tensor y = ops::linear(x, weight, {});
  EXPECT_EQ(y[0][0].item<float>(), inf);
  EXPECT_TRUE(std::isnan(y[0][1].item<float>()));
  EXPECT_EQ(y[0][2].item<float>(), 1.0f);
}

TEST(LinearTest, GradientFlowsThroughEveryTypePairing) {
  at::manual_seed(4);
  testing::expect_gradient_matches(
      [](const std::vector<Tensor>& in) { return ops::linear(in[0], in[1], in[2]); },
      {at::randn({3, 5}, at::kDouble), at::randn({4, 5}, at::kDouble), at::randn({4}, at::kDouble)});
  for (const auto types : {Types{at::kBFloat16, at::kBFloat16}, Types{at::kFloat, at::kBFloat16},
                           Types{at::kFloat, at::kFloat}}) {
    const Tensor x = at::randn({2, 5}).to(types.x).set_requires_grad(true);
    const Tensor weight = at::randn({4, 5}).to(types.weight).set_requires_grad(true);
    const Tensor y = ops::linear(x, weight, {});
    ASSERT_TRUE(y.requires_grad());
    const auto gradients = torch::autograd::grad({y.sum()}, {x, weight});
    const Tensor exact[] = {weight.detach().to(at::kDouble).sum(0).expand({2, 5}),
                            x.detach().to(at::kDouble).sum(0).expand({4, 5})};
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_LT(error_in_roundings(gradients[i], exact[i]),
                gradients[i].scalar_type() == at::kBFloat16 ? 2.01 : 4.0)
          << i;
  }
}

TEST(LinearTest, RowsOfALargerMatrixAreMultipliedAndNotKept) {
  at::manual_seed(6);
  for (const auto type : {at::kDouble, at::kFloat}) {
    const Tensor x = at::randn({2, 3, 40}, type).set_requires_grad(true),
                 weight = at::randn({5 * 3 * 8, 40}, type).set_requires_grad(true),
                 bias = at::randn({5 * 3 * 8}, type).set_requires_grad(true),
                 weighting = at::randn({2, 3, 40}, type);
    const auto rows = [](const Tensor& t) { return t.unflatten(0, {5, 3, 8}).select(1, 1); };
    const Tensor got = linear_of_rows(x, rows(weight), rows(bias)),
                 expected = at::linear(x, rows(weight).flatten(0, 1), rows(bias).flatten());
    EXPECT_TRUE(at::equal(got, expected));
    EXPECT_TRUE(at::equal(linear_of_rows(x, rows(weight), {}), at::linear(x, rows(weight).flatten(0, 1))));
    const auto gradients = [&](const Tensor& y) {
      return torch::autograd::grad({(y * weighting).sum()}, {x, weight, bias});
    };
    const auto own = gradients(got), plain = gradients(expected);
    for (std::size_t i = 0; i < plain.size(); ++i)
      EXPECT_LT(max_difference(own[i], plain[i]), type == at::kDouble ? 1e-13 : 1e-5) << i;
  }
  const Tensor frozen = at::randn({3 * 256, 512}), x = at::randn({1, 512}).set_requires_grad(true);
  const Tensor rows = frozen.unflatten(0, {4, 3, 64}).select(1, 2);
  testing::CountingAllocator counter;
  const int64_t before = counter.now();
  const Tensor y = linear_of_rows(x, rows, {});
  EXPECT_LT(counter.now() - before, 2 * 256 * 4);  // the result
  EXPECT_LT(max_difference(torch::autograd::grad({y.sum()}, {x})[0], rows.flatten(0, 1).sum(0, true)), 1e-4);
  EXPECT_THROW(linear_of_rows(x, frozen, {}), ShapeError);
  EXPECT_THROW(linear_of_rows(x, rows, at::zeros({4, 3})), ShapeError);
}

class LinearOnDeviceTest : public testing::OnDeviceTest<Shape> {};

TEST_P(LinearOnDeviceTest, BiasResidualAndGateAreExactUpToRounding) {
  const auto [rows, in, out] = shape();
  at::manual_seed(5);
  const auto draw = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(type()); };
  const Tensor x = draw({rows, 1, in}), weight = draw({out, in}) / std::sqrt(static_cast<double>(in)),
               up = draw({out, in}) / std::sqrt(static_cast<double>(in)), bias = draw({out}),
               up_bias = draw({out}), residual = draw({rows, 1, out});
  const auto there = [&](const Tensor& t) { return t.to(device()); };
  const auto exact = [&](const Tensor& w, const Tensor& b, bool sizes) {
    const auto wide = [&](const Tensor& t) { return sizes ? t.to(at::kDouble).abs() : t.to(at::kDouble); };
    return at::linear(wide(x), wide(w), wide(b));
  };
  // Sums in fp32, which for bf16 are far finer than the result; the residual is added to a rounded product
  // where cuBLAS or the CPU makes it, and gates are rounded on the way there.
  const double roundings = type() == at::kFloat ? static_cast<double>(in) + 4 : 2.5;
  const Tensor a = exact(weight, bias, false), a_size = exact(weight, bias, true);
  EXPECT_LE(testing::error_in_roundings(ops::linear(there(x), there(weight), there(bias)), a, a_size),
            roundings);
  EXPECT_LE(
      testing::error_in_roundings(ops::linear(there(x), there(weight), there(bias), there(residual)),
                                  a + residual.to(at::kDouble), a_size + residual.to(at::kDouble).abs()),
      roundings);
  const Tensor b = exact(up, up_bias, false), b_size = exact(up, up_bias, true);
  for (const Gate act : {Gate::identity, Gate::gelu, Gate::silu}) {
    const Tensor y = gated_linear(there(x), there(weight), there(bias), there(up), there(up_bias), act);
    // |act(a)| <= |a| and |act'| < 1.13.
    EXPECT_LE(testing::error_in_roundings(y, gated(a, b, act), 1.13 * a_size * b_size), 2 * roundings);
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, LinearOnDeviceTest,
                         ::testing::Combine(::testing::Values(Shape{1, 32, 17}, Shape{1, 7, 3},
                                                              Shape{3, 129, 20}, Shape{8, 264, 16},
                                                              Shape{9, 16, 8}),
                                            testing::kDevices, ::testing::Values(at::kFloat, at::kBFloat16)));

TEST(LinearTest, WrongShapesAndTypesAreRefused) {
  EXPECT_THROW(ops::linear(at::zeros({2, 5}), at::zeros({4, 6}), {}), ShapeError);
  EXPECT_THROW(ops::linear(at::zeros({2, 5}), at::zeros({4, 5}), at::zeros({5})), ShapeError);
  EXPECT_THROW(ops::linear(at::zeros({2, 5}, at::kBFloat16), at::zeros({4, 5}), {}), ShapeError);
  EXPECT_THROW(ops::linear(at::zeros({2, 5}), at::zeros({4, 5}), at::zeros({4}, at::kBFloat16)), ShapeError);
}

}  // namespace
}  // namespace focus::ops
