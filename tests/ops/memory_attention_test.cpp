#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "attention_case.h"
#include "focus/core/error.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using testing::max_difference;

class MemoryAttentionTest : public ::testing::TestWithParam<Case> {};

TEST_P(MemoryAttentionTest, EqualsTheDefinition) {
  at::manual_seed(1);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Inputs in = make(GetParam(), type);
    const Tensor expected = by_definition(in);
    const Tensor got = memory_attention(in.q, in.memory, in.k, in.v);
    EXPECT_EQ(got.scalar_type(), type);
    // The result is rounded once; values reach about 4, where half a unit of bf16 is 2^-7.
    // Scores are rounded to fp32 as well, and are the larger the more masses there are.
    const double rounding = GetParam().entries < 300 && GetParam().queries < 300 ? 5e-6 : 1e-5;
    EXPECT_LT(max_difference(got, expected), type == at::kFloat ? rounding : 0x1.02p-7);
    for (const int64_t block_bytes : {int64_t{1} << 26, int64_t{20000}})
      EXPECT_LT(
          max_difference(memory_attention_reference(in.q, in.memory, in.k, in.v, block_bytes), expected),
          type == at::kFloat ? rounding : 0.03);
  }
}

INSTANTIATE_TEST_SUITE_P(
    OddSizes, MemoryAttentionTest,
    ::testing::Values(Case{1, 1, 1, 1, 0, 1, 2, false, false}, Case{1, 2, 2, 1, 0, 300, 16, false, false},
                      Case{2, 3, 3, 7, 0, 12, 10, false, false}, Case{1, 2, 2, 65, 0, 65, 32, false, false},
                      Case{1, 1, 1, 130, 0, 259, 40, false, false}, Case{2, 2, 2, 1, 17, 5, 128, true, false},
                      Case{2, 3, 3, 33, 41, 70, 20, true, false}, Case{1, 2, 2, 67, 129, 67, 96, true, false},
                      Case{1, 2, 2, 5, 9, 40, 8, false, false}, Case{2, 2, 2, 6, 131, 0, 24, true, false},
                      Case{1, 2, 2, 6, 13, 0, 24, false, false}, Case{2, 4, 2, 1, 9, 30, 16, true, false},
                      Case{2, 6, 2, 37, 21, 50, 34, true, false}, Case{1, 6, 3, 37, 21, 50, 34, true, true},
                      Case{1, 8, 1, 19, 0, 200, 64, false, false}, Case{1, 4, 2, 9, 11, 0, 12, true, true},
                      // Around the change of form, a tile of rows, a block of keys and a call's rows.
                      Case{1, 1, 1, 11, 3, 200, 64, true, false}, Case{1, 1, 1, 12, 3, 200, 64, true, false},
                      Case{1, 4, 2, 6, 3, 390, 64, true, true}, Case{1, 2, 2, 16, 192, 16, 32, true, false},
                      Case{1, 2, 2, 17, 193, 17, 64, true, false},
                      Case{1, 1, 1, 33, 191, 225, 66, true, false},
                      Case{2, 1, 1, 300, 390, 310, 128, true, false},
                      Case{1, 8, 1, 600, 5, 600, 8, true, true},
                      Case{1, 3, 1, 90, 400, 100, 96, true, true}));

TEST_P(MemoryAttentionTest, GradientsEqualThoseOfTheDefinitionWholeAndInBlocks) {
  at::manual_seed(2);
  Inputs in = make(GetParam(), at::kDouble);
  std::vector<Tensor> leaves;
  for (Tensor* t : {&in.q, &in.k, &in.v, &in.memory.k, &in.memory.v, &in.memory.beta}) {
    if (!t->defined()) continue;
    if (t == &in.memory.beta) *t = t->to(at::kDouble).clamp_min(-30.0);
    leaves.push_back(t->set_requires_grad(true));
  }
  const Tensor weighting = at::randn(in.q.sizes(), at::kDouble);
  const auto expected = torch::autograd::grad({(by_definition(in) * weighting).sum()}, leaves);
  const auto whole =
      torch::autograd::grad({(memory_attention(in.q, in.memory, in.k, in.v) * weighting).sum()}, leaves);
  const auto blocks = torch::autograd::grad(
      {(memory_attention_reference(in.q, in.memory, in.k, in.v, 20000) * weighting).sum()}, leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    EXPECT_LT(max_difference(whole[i], expected[i]), 1e-10) << "leaf " << i;
    EXPECT_LT(max_difference(blocks[i], expected[i]), 1e-10) << "leaf " << i;
  }
}

TEST_P(MemoryAttentionTest, KernelsGradientsEqualThoseOfTheDefinitionForAnyNumberOfThreads) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    at::manual_seed(2);
    Inputs in = make(GetParam(), type);
    if (in.memory.beta.defined()) in.memory.beta.clamp_(-30, 10);
    std::vector<Tensor> leaves;
    for (Tensor* t : {&in.q, &in.k, &in.v, &in.memory.k, &in.memory.v, &in.memory.beta}) {
      if (t->defined()) leaves.push_back(t->set_requires_grad(true));
    }
    const Tensor weighting = at::randn(in.q.sizes()).to(type);
    const auto expected =
        torch::autograd::grad({(by_definition(in) * weighting.to(at::kDouble)).sum()}, leaves);
    const auto run = [&] {
      return torch::autograd::grad({memory_attention(in.q, in.memory, in.k, in.v)}, leaves, {weighting});
    };
    const auto got = run();
    const int threads = at::get_num_threads();
    at::set_num_threads(3);
    const auto again = run();
    at::set_num_threads(threads);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      EXPECT_EQ(got[i].scalar_type(), leaves[i].scalar_type());
      EXPECT_TRUE(at::equal(got[i], again[i])) << "leaf " << i;
      // The expected ones went through the leaves' own type; what goes through the output is rounded to it.
      const double size = expected[i].to(at::kDouble).abs().max().item<double>();
      EXPECT_LE(max_difference(got[i], expected[i]),
                (type == at::kFloat ? 2e-5 : 0x1p-3) * std::max(1.0, size))
          << type << " leaf " << i;
    }
  }
}

TEST(MemoryAttentionTest, KernelsHaveNoSecondDerivative) {
  const Tensor q = at::randn({1, 1, 3, 4}).set_requires_grad(true), k = at::randn({1, 1, 3, 4});
  const Tensor out = memory_attention(q, {}, k, k).sum();
  EXPECT_THROW(torch::autograd::grad({out}, {q}, {}, true, /*create_graph=*/true), InternalError);
}

class MemoryAttentionOnCardTest : public testing::OnDeviceTest<Case> {
 protected:
  Inputs there(const Inputs& in) const {
    const auto moved = [&](const Tensor& t) { return t.defined() ? t.to(device()) : t; };
    return {moved(in.q), moved(in.k), moved(in.v),
            MemoryPart{moved(in.memory.k), moved(in.memory.v), moved(in.memory.beta)}};
  }
  /// Weights and results are rounded to the type, scores of up to 100 to fp32; values reach about 4.
  double rounding() const { return type() == at::kFloat ? 100 * 0x1p-23 : 0x1p-7; }
};

TEST_P(MemoryAttentionOnCardTest, EqualsTheDefinition) {
  at::manual_seed(1);
  const Inputs in = make(shape(), type()), card = there(in);
  const Tensor got = memory_attention(card.q, card.memory, card.k, card.v);
  EXPECT_EQ(got.scalar_type(), type());
  EXPECT_EQ(got.device(), device());
  EXPECT_LE(max_difference(got.cpu(), by_definition(in)), 4 * rounding());
}

TEST_P(MemoryAttentionOnCardTest, GradientsEqualThoseOfTheDefinition) {
  at::manual_seed(2);
  Inputs in = make(shape(), type());
  if (in.memory.beta.defined()) in.memory.beta.clamp_(-30, 10);
  Inputs card = there(in);
  const auto leaves = [](Inputs& of) {
    std::vector<Tensor> all;
    for (Tensor* t : {&of.q, &of.k, &of.v, &of.memory.k, &of.memory.v, &of.memory.beta}) {
      if (t->defined()) all.push_back(t->set_requires_grad(true));
    }
    return all;
  };
  const std::vector<Tensor> exact_leaves = leaves(in), card_leaves = leaves(card);
  const Tensor weighting = at::randn(in.q.sizes()).to(type());
  const auto expected =
      torch::autograd::grad({(by_definition(in) * weighting.to(at::kDouble)).sum()}, exact_leaves);
  const Tensor out = memory_attention(card.q, card.memory, card.k, card.v);
  const auto got = torch::autograd::grad({out}, card_leaves, {weighting.to(device())});
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(got[i].scalar_type(), card_leaves[i].scalar_type());
    // The expected ones went through the leaves' own type.
    const double size = expected[i].to(at::kDouble).abs().max().item<double>();
    EXPECT_LE(max_difference(got[i].cpu(), expected[i]), 4 * rounding() * std::max(1.0, size))
        << "leaf " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, MemoryAttentionOnCardTest,
                         ::testing::Combine(::testing::Values(Case{1, 2, 2, 1, 0, 300, 16, false, false},
                                                              Case{2, 3, 3, 7, 0, 12, 10, false, false},
                                                              Case{2, 2, 2, 1, 17, 5, 128, true, false},
                                                              Case{1, 2, 2, 67, 129, 67, 96, true, false},
                                                              Case{2, 2, 2, 6, 131, 0, 24, true, false},
                                                              Case{1, 6, 3, 37, 21, 50, 34, true, true},
                                                              Case{1, 8, 1, 19, 0, 200, 64, false, false},
                                                              Case{1, 4, 2, 9, 11, 0, 12, true, true},
                                                              Case{1, 2, 1, 70, 65, 90, 64, true, false},
                                                              Case{1, 2, 2, 33, 40, 33, 128, true, false}),
                                            testing::kCards, ::testing::Values(at::kFloat, at::kBFloat16)));

class HiddenKeysOnCardTest : public testing::OnDeviceTest<int64_t> {};

TEST_P(HiddenKeysOnCardTest, AQueryThatSeesNothingGetsZerosAndNanIsKept) {
  const at::Device card = device();
  const int64_t dim = shape();
  const Tensor q = at::randn({1, 2, 3, dim}).to(type()), k = at::randn({1, 2, 5, dim}).to(type());
  const Tensor there = k.to(card);
  const Tensor hidden = at::full({1, 2, 5}, -std::numeric_limits<float>::infinity()).to(card);
  for (const Tensor& out : {memory_attention(q.to(card), {{there, there, hidden}}, {}, {}),
                            memory_attention(q.to(card), {}, {}, {})})
    EXPECT_TRUE(at::equal(out.cpu(), at::zeros_like(q)));
  Tensor broken = k.clone();
  broken[0][1][4][0] = std::numeric_limits<float>::quiet_NaN();
  const Tensor out = memory_attention(q.to(card), {}, broken.to(card), there).cpu();
  EXPECT_TRUE(at::isfinite(out[0][0]).all().item<bool>());
  EXPECT_TRUE(at::isfinite(out[0][1][1]).all().item<bool>());
  EXPECT_TRUE(at::isnan(out[0][1][2]).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(HeadDimensions, HiddenKeysOnCardTest,
                         ::testing::Combine(::testing::Values(4, 64), testing::kCards,
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

class NumKeysOnDeviceTest : public testing::OnDeviceTest<Case> {};

TEST_P(NumKeysOnDeviceTest, KeysThatAreNotThereYetAreNotRead) {
  at::manual_seed(5);
  Inputs in = make(shape(), type());
  const int64_t room = 40;
  const auto with_room = [&](const Tensor& t) {
    return at::cat({t, at::full({t.size(0), t.size(1), room, t.size(3)}, std::nan(""), t.options())}, 2)
        .to(device());
  };
  const auto there = [&](const Tensor& t) { return t.defined() ? t.to(device()) : t; };
  const Tensor num_keys = at::full({1}, shape().keys, at::kInt).to(device());
  const MemoryPart memory{there(in.memory.k), there(in.memory.v), there(in.memory.beta)};
  const Tensor got = memory_attention(there(in.q), memory, with_room(in.k), with_room(in.v), num_keys).cpu();
  const Tensor expected = by_definition(in);
  EXPECT_LE(max_difference(got, expected), type() == at::kBFloat16 ? 0x1p-6
                                           : type() == at::kFloat  ? 1e-5
                                                                   : 1e-6);
  EXPECT_THROW(
      memory_attention(there(in.q), memory, with_room(in.k), with_room(in.v), num_keys.to(at::kLong)),
      ShapeError);
  EXPECT_THROW(memory_attention(there(in.q), memory, {}, {}, num_keys), ShapeError);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, NumKeysOnDeviceTest,
                         ::testing::Combine(::testing::Values(Case{1, 2, 2, 1, 0, 300, 16, false, false},
                                                              Case{2, 2, 2, 1, 17, 5, 128, true, false},
                                                              Case{2, 6, 3, 7, 21, 50, 34, true, true},
                                                              Case{1, 4, 2, 1, 9, 1, 64, false, false}),
                                            testing::kDevices,
                                            ::testing::Values(at::kFloat, at::kBFloat16, at::kDouble)));

TEST(MemoryAttentionTest, ReadsStridedInputAndIsIndependentOfThreads) {
  at::manual_seed(3);
  const Tensor qkv = at::randn({1, 90, 3, 2, 16}).permute({2, 0, 3, 1, 4});
  const Tensor dense = memory_attention(qkv[0].contiguous(), {}, qkv[1].contiguous(), qkv[2].contiguous());
  EXPECT_TRUE(at::equal(memory_attention(qkv[0], {}, qkv[1], qkv[2]), dense));
  const Tensor reversed =
      qkv.transpose(3, 4).contiguous().transpose(3, 4);  // the head dimension is not contiguous
  EXPECT_TRUE(at::equal(memory_attention(reversed[0], {}, reversed[1], reversed[2]), dense));
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  EXPECT_TRUE(at::equal(memory_attention(qkv[0], {}, qkv[1], qkv[2]), dense));
  at::set_num_threads(threads);
}

TEST(MemoryAttentionTest, ExtremeScoresNeitherOverflowNorVanish) {
  const Tensor q = at::full({1, 1, 1, 4}, 1e4), k = at::full({1, 1, 2, 4}, 1e4),
               v = at::arange(8, at::kFloat).view({1, 1, 2, 4});
  EXPECT_TRUE(at::allclose(memory_attention(q, {}, k, v), v.mean(2, true)));
  const Tensor far = at::tensor({-1e30f, -1e30f}).view({1, 1, 2});
  EXPECT_TRUE(at::allclose(memory_attention(at::zeros_like(q), {{k, v, far}}, {}, {}), v.mean(2, true)));
}

TEST(MemoryAttentionTest, AQueryThatSeesNothingGetsZerosAndNanIsKept) {
  const Tensor q = at::randn({1, 2, 3, 4}), k = at::randn({1, 2, 5, 4});
  const Tensor hidden = at::full({1, 2, 5}, -std::numeric_limits<float>::infinity());
  for (const auto& f : {memory_attention_reference(q, {{k, k, hidden}}, {}, {}),
                        memory_attention(q, {{k, k, hidden}}, {}, {}), memory_attention(q, {}, {}, {}),
                        memory_attention_reference(q, {}, {}, {})})
    EXPECT_TRUE(at::equal(f, at::zeros_like(q)));
  Tensor broken = k.clone();
  broken[0][1][4][0] = std::numeric_limits<float>::quiet_NaN();
  const Tensor out = memory_attention(q, {}, broken, k);
  EXPECT_TRUE(at::isfinite(out[0][0]).all().item<bool>());
  EXPECT_TRUE(at::isnan(out[0][1][2]).all().item<bool>());
}

TEST(MemoryAttentionTest, WrongShapesAreRefused) {
  const Tensor q = at::zeros({1, 4, 3, 8}), k = at::zeros({1, 2, 5, 8});
  EXPECT_THROW(memory_attention(q, {}, k, at::zeros({1, 2, 6, 8})), ShapeError);
  EXPECT_THROW(memory_attention(q, {}, at::zeros({1, 3, 5, 8}), at::zeros({1, 3, 5, 8})), ShapeError);
  EXPECT_THROW(memory_attention(q, {}, at::zeros({1, 2, 2, 8}), at::zeros({1, 2, 2, 8})), ShapeError);
  EXPECT_THROW(memory_attention(q, {}, k.to(at::kBFloat16), k.to(at::kBFloat16)), ShapeError);
  EXPECT_THROW(memory_attention(q, {{k, k, at::zeros({1, 2, 6})}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{{}, {}, at::zeros({1, 2, 5})}}, k, k), ShapeError);
  EXPECT_THROW(attention(q, at::zeros({1, 3, 5, 8}), at::zeros({1, 3, 5, 8}), {}), ShapeError);
}

TEST(MemoryAttentionTest, PlainAttentionSharesHeadsToo) {
  at::manual_seed(4);
  const Tensor q = at::randn({2, 6, 5, 8}), k = at::randn({2, 2, 7, 8}), v = at::randn({2, 2, 7, 8}),
               bias = at::randn({2, 2, 5, 7});
  const auto all = [](const Tensor& t) { return t.repeat_interleave(3, 1); };
  EXPECT_LT(max_difference(attention(q, k, v, bias), attention(q, all(k), all(v), all(bias))), 1e-6);
  EXPECT_LT(max_difference(attention(q, k, v, {}), attention(q, all(k), all(v), {})), 1e-6);
}

}  // namespace
}  // namespace focus::ops
