#include "focus/ops/fir.h"
#include "focus/ops/modal_scan.h"
#include "focus/ops/rms_norm.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::expect_gradient_matches;
using testing::max_difference;

struct Shape {
  int64_t batch, length, channels, taps;
};

class FirTest : public ::testing::TestWithParam<Shape> {};

TEST_P(FirTest, KernelEqualsReference) {
  at::manual_seed(1);
  const auto [batch, length, channels, taps] = GetParam();
  for (const auto type : {at::kFloat, at::kDouble}) {
    const Tensor x = at::randn({batch, length + taps - 1, channels}, type), w = at::randn({taps, channels}, type);
    EXPECT_LT(max_difference(causal_fir(x, w), causal_fir_reference(x, w)), type == at::kFloat ? 1e-4 : 1e-12);
  }
}

TEST_P(FirTest, GradientMatchesDifferences) {
  at::manual_seed(2);
  const auto [batch, length, channels, taps] = GetParam();
  expect_gradient_matches([](const std::vector<Tensor>& in) { return causal_fir(in[0], in[1]); },
                          {at::randn({batch, length + taps - 1, channels}, at::kDouble), at::randn({taps, channels}, at::kDouble)});
}

INSTANTIATE_TEST_SUITE_P(OddSizes, FirTest,
                         ::testing::Values(Shape{1, 1, 1, 1}, Shape{2, 5, 3, 3}, Shape{1, 17, 16, 7}, Shape{2, 131, 30, 7},
                                           Shape{1, 257, 33, 128}, Shape{3, 64, 90, 3}, Shape{1, 1025, 48, 9}));

TEST(FirTest, ImpulseMeetsTheLastTapFirst) {
  Tensor x = at::zeros({1, 8, 1});
  x[0][2][0] = 1.0;  // two rows of context, then the impulse is the first input
  const Tensor taps = at::arange(1, 4, at::kFloat).view({3, 1});
  EXPECT_TRUE(at::equal(causal_fir(x, taps).flatten(), at::tensor({3.f, 2.f, 1.f, 0.f, 0.f, 0.f})));
}

TEST(FirTest, WrongShapesAreRefused) {
  EXPECT_THROW(causal_fir(at::zeros({1, 2, 4}), at::zeros({3, 4})), ShapeError);
  EXPECT_THROW(causal_fir(at::zeros({1, 8, 4}), at::zeros({3, 5})), ShapeError);
  EXPECT_THROW(causal_fir(at::zeros({1, 8, 4}, at::kBFloat16), at::zeros({3, 4}, at::kBFloat16)), ShapeError);
}

struct ScanShape {
  int64_t batch, length, channels, modes;
};

class ScanTest : public ::testing::TestWithParam<ScanShape> {
 protected:
  static std::vector<Tensor> inputs(const ScanShape& s, at::ScalarType type) {
    return {at::randn({s.batch, s.length, s.channels}, type), -(at::randn({s.channels, s.modes}, type).exp() * 0.2),
            at::randn({s.channels, s.modes}, type), at::randn({s.batch, s.channels, s.modes}, type)};
  }
};

TEST_P(ScanTest, KernelEqualsReferenceAndExplicitSum) {
  at::manual_seed(3);
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto in = inputs(GetParam(), type);
    const double tolerance = type == at::kFloat ? 2e-3 : 1e-10;
    const auto [y, final] = modal_scan(in[0], in[1], in[2], in[3]);
    const auto [expected_y, expected_final] = modal_scan_reference(in[0], in[1], in[2], in[3]);
    EXPECT_LT(max_difference(y, expected_y), tolerance);
    EXPECT_LT(max_difference(final, expected_final), tolerance);
    // By definition: the last output as a sum over all inputs.
    const int64_t length = in[0].size(1);
    const Tensor lag = at::arange(length - 1, -1, -1, at::kDouble);
    const Tensor h = (in[2].to(at::kDouble).unsqueeze(-1) * (in[1].to(at::kDouble).unsqueeze(-1) * lag).exp()).sum(1);  // [D, L]
    const Tensor last =
        (in[0].to(at::kDouble).transpose(1, 2) * h).sum(-1) +
        (in[3].to(at::kDouble) * in[2].to(at::kDouble) * (in[1].to(at::kDouble) * static_cast<double>(length)).exp()).sum(-1);
    EXPECT_LT(max_difference(y.select(1, length - 1), last), tolerance);
  }
}

TEST_P(ScanTest, GradientMatchesDifferences) {
  at::manual_seed(4);
  expect_gradient_matches(
      [](const std::vector<Tensor>& in) {
        const auto [y, final] = modal_scan(in[0], in[1], in[2], in[3]);
        return at::cat({y.flatten(), final.flatten()});
      },
      inputs(GetParam(), at::kDouble));
}

INSTANTIATE_TEST_SUITE_P(OddSizes, ScanTest,
                         ::testing::Values(ScanShape{1, 1, 1, 1}, ScanShape{2, 7, 3, 16}, ScanShape{1, 64, 16, 16},
                                           ScanShape{2, 65, 30, 16}, ScanShape{1, 200, 17, 5}, ScanShape{1, 129, 40, 16}));

TEST(ScanTest, ChunksEqualOnePass) {
  at::manual_seed(5);
  const Tensor p = at::randn({2, 301, 20}), poles = -at::rand({20, 16}), residues = at::randn({20, 16});
  const auto [whole, whole_state] = modal_scan(p, poles, residues, {});
  for (const int64_t chunk : {1, 3, 64, 127}) {
    Tensor state;
    std::vector<Tensor> parts;
    for (int64_t t = 0; t < 301; t += chunk) {
      auto [y, next] = modal_scan(p.narrow(1, t, std::min(chunk, 301 - t)), poles, residues, state);
      parts.push_back(y);
      state = next;
    }
    EXPECT_LT(max_difference(at::cat(parts, 1), whole), 1e-5) << chunk;
    EXPECT_LT(max_difference(state, whole_state), 1e-5) << chunk;
  }
}

TEST(RmsNormTest, EpsilonStandsOutsideTheRoot) {
  const Tensor x = at::full({1, 4}, 1e-6, at::kDouble), scale = at::ones({4}, at::kDouble);
  EXPECT_LT(max_difference(rms_norm(x, scale, 1e-6), at::full({1, 4}, 0.5, at::kDouble)), 1e-12);
}

TEST(RmsNormTest, GradientMatchesDifferences) {
  at::manual_seed(6);
  expect_gradient_matches([](const std::vector<Tensor>& in) { return rms_norm(in[0], in[1], 1e-6); },
                          {at::randn({2, 5, 12}, at::kDouble), at::randn({12}, at::kDouble)});
}

}  // namespace
}  // namespace focus::ops
