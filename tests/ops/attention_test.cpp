#include "focus/ops/attention.h"

#include <gtest/gtest.h>

#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::max_difference;

Tensor by_definition(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias) {
  const Tensor scores = at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(-1, -2)) /
                            std::sqrt(static_cast<double>(q.size(-1))) +
                        bias.to(at::kDouble);
  return at::matmul(at::softmax(scores, -1), v.to(at::kDouble));
}

TEST(AttentionTest, FusedAndExplicitEqualTheDefinition) {
  at::manual_seed(1);
  const Tensor q = at::randn({2, 3, 7, 10}), k = at::randn({2, 3, 12, 10}), v = at::randn({2, 3, 12, 10});
  Tensor bias = causal_bias(7, 12, at::kCPU).unsqueeze(0) + at::randn({3, 1, 12});
  const Tensor expected = by_definition(q, k, v, bias);
  EXPECT_LT(max_difference(attention(q, k, v, bias), expected), 1e-5);
  bias.set_requires_grad(true);
  EXPECT_LT(max_difference(attention(q, k, v, bias).detach(), expected), 1e-5);
}

TEST(AttentionTest, BiasKeepsItsDigitsInBf16) {
  // Two keys with equal scores: the weight of the first is sigmoid(beta); a beta rounded to bf16 would be off
  // by up to 4e-3.
  const Tensor q = at::zeros({1, 1, 1, 8}, at::kBFloat16), k = at::zeros({1, 1, 2, 8}, at::kBFloat16);
  Tensor v = at::zeros({1, 1, 2, 8}, at::kBFloat16);
  v[0][0][0].fill_(1.0);
  const double beta = 4.5932;
  const Tensor bias = at::tensor({static_cast<float>(beta), 0.f}).view({1, 1, 1, 2});
  const double got = attention(q, k, v, bias).to(at::kDouble).flatten()[0].item<double>();
  EXPECT_NEAR(got, 1 / (1 + std::exp(-beta)), 4e-3);  // the output itself is bf16
}

TEST(AttentionTest, CausalWithAPastEqualsTheMaskedDefinition) {
  at::manual_seed(2);
  const Tensor q = at::randn({1, 2, 1300, 8}), k = at::randn({1, 2, 1400, 8}), v = at::randn({1, 2, 1400, 8});
  EXPECT_LT(
      max_difference(causal_attention(q, k, v), by_definition(q, k, v, causal_bias(1300, 1400, at::kCPU))),
      1e-5);
}

TEST(AttentionTest, GradientReachesTheBias) {
  at::manual_seed(3);
  testing::expect_gradient_matches(
      [](const std::vector<Tensor>& in) { return attention(in[0], in[1], in[2], in[3]); },
      {at::randn({1, 2, 4, 6}, at::kDouble), at::randn({1, 2, 5, 6}, at::kDouble),
       at::randn({1, 2, 5, 6}, at::kDouble), at::randn({1, 2, 1, 5}, at::kDouble)});
}

TEST(RotateTest, ScoresDependOnDistanceOnly) {
  at::manual_seed(4);
  const Tensor q = at::randn({1, 16}, at::kDouble), k = at::randn({1, 16}, at::kDouble), freq = at::rand({8});
  const auto score = [&](int64_t tq, int64_t tk) {
    return (rotate(q, at::tensor({tq}), freq, 4.0) * rotate(k, at::tensor({tk}), freq, 4.0))
        .sum()
        .item<double>();
  };
  EXPECT_NEAR(score(105, 100), score(1000005, 1000000), 1e-9);
  EXPECT_GT(std::abs(score(105, 100) - score(150, 100)), 1e-6);
}

}  // namespace
}  // namespace focus::ops
