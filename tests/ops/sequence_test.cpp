#include "focus/ops/fir.h"
#include "focus/ops/modal_scan.h"
#include "focus/ops/rms_norm.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <utility>
#include <vector>

#include "focus/core/error.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::error_in_roundings;
using testing::expect_gradient_matches;
using testing::max_difference;

/// What a sum of products computed in fp64 is made of: the exact result, and the sum of the terms' sizes that
/// its rounding goes by.
struct Exact {
  Tensor value, magnitude;
};

struct Shape {
  int64_t batch, length, channels, taps;
};
const auto kFirShapes =
    ::testing::Values(Shape{1, 1, 1, 1}, Shape{2, 5, 3, 3}, Shape{1, 17, 16, 7}, Shape{2, 131, 30, 7},
                      Shape{1, 257, 33, 128}, Shape{3, 64, 90, 3}, Shape{1, 1025, 48, 9});

/// Gradients of <f(inputs), weighting> for outputs and weightings in order.
template <class F>
std::vector<Tensor> gradients(const F& f, const std::vector<Tensor>& inputs,
                              const std::vector<Tensor>& weightings) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.detach().clone().requires_grad_());
  const std::vector<Tensor> outputs = f(leaves);
  Tensor loss = (outputs[0] * weightings[0]).sum();
  for (std::size_t i = 1; i < outputs.size(); ++i) loss = loss + (outputs[i] * weightings[i]).sum();
  return torch::autograd::grad({loss}, leaves);
}
std::vector<Tensor> each(const std::vector<Tensor>& in, const std::function<Tensor(const Tensor&)>& f) {
  std::vector<Tensor> out;
  for (const Tensor& x : in) out.push_back(f(x));
  return out;
}
Tensor to_fp64(const Tensor& x) { return x.to(at::kDouble); }
Tensor size_of(const Tensor& x) { return x.to(at::kDouble).abs(); }

class FirOnDeviceTest : public testing::OnDeviceTest<Shape> {};

TEST_P(FirOnDeviceTest, KernelAndReferenceAreExactUpToRounding) {
  at::manual_seed(1);
  const auto [batch, length, channels, taps] = shape();
  const Tensor x = at::randn({batch, length + taps - 1, channels}, type()),
               w = at::randn({taps, channels}, type());
  const Tensor x64 = x.to(at::kDouble), w64 = w.to(at::kDouble);
  const Exact exact{causal_fir_reference(x64, w64), causal_fir_reference(x64.abs(), w64.abs())};
  // Each product and each sum rounds once; in fp64 what counts as exact does so too.
  const double bound = static_cast<double>(type() == at::kFloat ? taps : 2 * taps);
  const Tensor x_there = x.to(device()), w_there = w.to(device());
  EXPECT_LE(error_in_roundings(causal_fir(x_there, w_there), exact.value, exact.magnitude), bound);
  EXPECT_LE(error_in_roundings(causal_fir_reference(x_there, w_there), exact.value, exact.magnitude), bound);
}

TEST_P(FirOnDeviceTest, GradientIsExactUpToRounding) {
  at::manual_seed(4);
  const auto [batch, length, channels, taps] = shape();
  const std::vector<Tensor> in{at::randn({batch, length + taps - 1, channels}, type()),
                               at::randn({taps, channels}, type())},
      dy{at::randn({batch, length, channels}, type())};
  const auto fir = [](const std::vector<Tensor>& x) { return std::vector{causal_fir(x[0], x[1])}; };
  const auto there = [this](const Tensor& x) { return x.to(device()); };
  const auto got = gradients(fir, each(in, there), each(dy, there)),
             exact = gradients(fir, each(in, to_fp64), each(dy, to_fp64)),
             size = gradients(fir, each(in, size_of), each(dy, size_of));
  EXPECT_LE(error_in_roundings(got[0], exact[0], size[0]), 2 * static_cast<double>(taps));
  EXPECT_LE(error_in_roundings(got[1], exact[1], size[1]), 2 * static_cast<double>(batch * length));
}

INSTANTIATE_TEST_SUITE_P(OddSizes, FirOnDeviceTest,
                         ::testing::Combine(kFirShapes, testing::kDevices,
                                            ::testing::Values(at::kFloat, at::kDouble)));

class FirTest : public ::testing::TestWithParam<Shape> {};

TEST_P(FirTest, GradientMatchesDifferences) {
  at::manual_seed(2);
  const auto [batch, length, channels, taps] = GetParam();
  expect_gradient_matches([](const std::vector<Tensor>& in) { return causal_fir(in[0], in[1]); },
                          {at::randn({batch, length + taps - 1, channels}, at::kDouble),
                           at::randn({taps, channels}, at::kDouble)});
}

INSTANTIATE_TEST_SUITE_P(OddSizes, FirTest, kFirShapes);

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

const auto kScanShapes = ::testing::Values(
    ScanShape{1, 1, 1, 1}, ScanShape{2, 7, 3, 16}, ScanShape{1, 64, 16, 16}, ScanShape{2, 65, 30, 16},
    ScanShape{1, 200, 17, 5}, ScanShape{1, 129, 40, 16}, ScanShape{1, 300, 5, 20});

std::vector<Tensor> scan_inputs(const ScanShape& s, at::ScalarType type) {
  return {at::randn({s.batch, s.length, s.channels}, type),
          -(at::randn({s.channels, s.modes}, type).exp() * 0.2), at::randn({s.channels, s.modes}, type),
          at::randn({s.batch, s.channels, s.modes}, type)};
}

/// By definition, each output a sum over all inputs before it: y [B, L, D] and the final state [B, D, N].
std::pair<Tensor, Tensor> scan_by_sums(const Tensor& p, const Tensor& log_poles, const Tensor& residues,
                                       const Tensor& state) {
  const int64_t length = p.size(1);
  const Tensor decay =
      (log_poles.unsqueeze(-1) * at::arange(length + 1, at::kDouble)).exp();  // [D, N, L + 1]
  std::vector<Tensor> y;
  Tensor states;
  for (int64_t t = 0; t < length; ++t) {
    const Tensor lags = decay.narrow(2, 0, t + 1).flip(2);
    states = at::einsum("btd,dnt->bdn", {p.narrow(1, 0, t + 1), lags}) + state * decay.select(2, t + 1);
    y.push_back((states * residues).sum(-1));
  }
  return {at::stack(y, 1), states};
}

class ScanOnDeviceTest : public testing::OnDeviceTest<ScanShape> {};

TEST_P(ScanOnDeviceTest, KernelAndReferenceAreExactUpToRounding) {
  at::manual_seed(3);
  std::vector<Tensor> in = scan_inputs(shape(), type()), exact, there;
  for (const Tensor& x : in) {
    exact.push_back(x.to(at::kDouble));
    there.push_back(x.to(device()));
  }
  const auto [y, final] = scan_by_sums(exact[0], exact[1], exact[2], exact[3]);
  const auto [y_size, final_size] = scan_by_sums(exact[0].abs(), exact[1], exact[2].abs(), exact[3].abs());
  // Three roundings a step, and one for each mode of an output; in fp64 what counts as exact has as many.
  const double steps = static_cast<double>(3 * shape().length + shape().modes + 1),
               bound = type() == at::kFloat ? steps : 2 * steps;
  for (const auto& [got_y, got_final] : {modal_scan(there[0], there[1], there[2], there[3]),
                                         modal_scan_reference(there[0], there[1], there[2], there[3])}) {
    EXPECT_LE(error_in_roundings(got_y, y, y_size), bound);
    EXPECT_LE(error_in_roundings(got_final, final, final_size), bound);
  }
}

TEST_P(ScanOnDeviceTest, GradientIsExactUpToRounding) {
  at::manual_seed(5);
  const auto in = scan_inputs(shape(), type());
  const std::vector<Tensor> weightings{at::randn_like(in[0]), at::randn_like(in[3])};
  const auto scan = [](const std::vector<Tensor>& x) {
    const auto [y, final] = modal_scan(x[0], x[1], x[2], x[3]);
    return std::vector{y, final};
  };
  const auto there = [this](const Tensor& x) { return x.to(device()); };
  const auto got = gradients(scan, each(in, there), each(weightings, there)),
             exact = gradients(scan, each(in, to_fp64), each(weightings, to_fp64));
  auto sizes = each(in, size_of);
  sizes[1] = to_fp64(in[1]);
  const auto size = gradients(scan, sizes, each(weightings, size_of));
  // Twice what the outputs round, since each meets a state or an adjoint.
  const double bound = static_cast<double>(6 * shape().length + 2 * shape().modes + 4);
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_LE(error_in_roundings(got[i], exact[i], size[i]), bound) << "input " << i;
}

INSTANTIATE_TEST_SUITE_P(OddSizes, ScanOnDeviceTest,
                         ::testing::Combine(kScanShapes, testing::kDevices,
                                            ::testing::Values(at::kFloat, at::kDouble)));

class ScanTest : public ::testing::TestWithParam<ScanShape> {};

TEST_P(ScanTest, GradientMatchesDifferences) {
  at::manual_seed(4);
  expect_gradient_matches(
      [](const std::vector<Tensor>& in) {
        const auto [y, final] = modal_scan(in[0], in[1], in[2], in[3]);
        return at::cat({y.flatten(), final.flatten()});
      },
      scan_inputs(GetParam(), at::kDouble));
}

INSTANTIATE_TEST_SUITE_P(OddSizes, ScanTest, kScanShapes);

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
