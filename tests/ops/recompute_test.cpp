#include "focus/ops/recompute.h"

#include <gtest/gtest.h>

#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;

TEST(RecomputeTest, GradientsOfInputsAndParametersAreTheSame) {
  at::manual_seed(1);
  Tensor x = at::randn({3, 4}, at::kDouble), y = at::randn({3, 4}, at::kDouble),
         w = at::randn({4, 4}, at::kDouble);
  const Tensor plain = at::randn({3, 4}, at::kDouble);
  for (Tensor* t : {&x, &y, &w}) t->set_requires_grad(true);
  int calls = 0;
  const auto f = [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    ++calls;
    const Tensor h = at::matmul(in[0], w).tanh() * in[1];
    return {h + in[2], (h * h).sum()};
  };
  const auto gradients = [&](bool recompute) {
    for (Tensor* t : {&x, &y, &w}) t->mutable_grad() = Tensor();
    const auto out = recompute ? recomputed(f, {x, y, plain}) : f({x, y, plain});
    (out[0].sin().sum() + 3 * out[1]).backward();
    return std::vector<Tensor>{x.grad().clone(), y.grad().clone(), w.grad().clone()};
  };
  const auto expected = gradients(false);
  EXPECT_EQ(calls, 1);
  const auto got = gradients(true);
  EXPECT_EQ(calls, 3) << "once forward, once again for the gradient";
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_LT(testing::max_difference(got[i], expected[i]), 1e-12) << i;
}

TEST(RecomputeTest, AnOutputWithoutGradientIsNoHindrance) {
  Tensor x = at::ones({2}, at::kDouble).set_requires_grad(true);
  const auto out = recomputed(
      [](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {in[0] * 2, in[0] * 5}; }, {x});
  out[0].sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), at::full({2}, 2.0, at::kDouble)));
}

TEST(RecomputeTest, WithoutGradientItIsAPlainCall) {
  int calls = 0;
  const auto f = [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    ++calls;
    return {in[0] + 1};
  };
  EXPECT_FALSE(recomputed(f, {at::ones({2})})[0].requires_grad());
  const at::NoGradGuard guard;
  EXPECT_FALSE(recomputed(f, {at::ones({2}).set_requires_grad(true)})[0].requires_grad());
  EXPECT_EQ(calls, 2);
}

TEST(RecomputeTest, ReachesParametersWhereNoInputNeedsAGradient) {
  const Tensor weight = at::full({2}, 3.0, at::kDouble).set_requires_grad(true),
               x = at::arange(2, at::kDouble);
  int calls = 0;
  const auto f = [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    ++calls;
    EXPECT_EQ(in.size(), 1U);
    return {in[0] * weight};
  };
  recomputed(f, {x}, /*has_parameters=*/true)[0].sum().backward();
  EXPECT_TRUE(at::equal(weight.grad(), x));
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace focus::ops
