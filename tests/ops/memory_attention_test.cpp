#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <atomic>

#include "focus/core/error.h"
#include "focus/kernels/attention.h"
#include "focus/ops/attention.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::max_difference;

struct Case {
  int64_t batch, heads, key_heads, queries, entries, keys, dim;
  bool with_beta, beta_per_query_head;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "B" << c.batch << " H" << c.heads << " G" << c.key_heads << " Q" << c.queries << " P" << c.entries
       << " S" << c.keys << " E" << c.dim
       << (c.with_beta ? c.beta_per_query_head ? " beta per query head" : " beta" : "");
}

struct Inputs {
  Tensor q, k, v;
  MemoryPart memory;
};

Inputs make(const Case& c, at::ScalarType type) {
  Inputs in;
  in.q = at::randn({c.batch, c.heads, c.queries, c.dim}).to(type);
  const auto keys = [&](int64_t count) { return at::randn({c.batch, c.key_heads, count, c.dim}).to(type); };
  if (c.entries > 0) in.memory.k = keys(c.entries), in.memory.v = keys(c.entries);
  if (c.with_beta) {
    // Masses over many orders of magnitude, some entries hidden altogether.
    in.memory.beta = at::randn({c.batch, c.beta_per_query_head ? c.heads : c.key_heads, c.entries}) * 20;
    in.memory.beta.select(-1, c.entries / 2).fill_(-std::numeric_limits<float>::infinity());
  }
  if (c.keys > 0) in.k = keys(c.keys), in.v = keys(c.keys);
  return in;
}

/// Written out in fp64, with every array whole.
Tensor by_definition(const Inputs& in) {
  const int64_t heads = in.q.size(1), queries = in.q.size(2);
  const auto all_heads = [&](const Tensor& t) {
    return t.to(at::kDouble).repeat_interleave(heads / t.size(1), 1);
  };
  std::vector<Tensor> k, v, bias;
  if (in.memory.k.defined()) {
    const int64_t entries = in.memory.k.size(2);
    k.push_back(all_heads(in.memory.k)), v.push_back(all_heads(in.memory.v));
    const Tensor beta = in.memory.beta.defined() ? all_heads(in.memory.beta).unsqueeze(2)
                                                 : at::zeros({1, 1, 1, 1}, at::kDouble);
    bias.push_back(beta.expand({in.q.size(0), heads, queries, entries}));
  }
  if (in.k.defined()) {
    k.push_back(all_heads(in.k)), v.push_back(all_heads(in.v));
    bias.push_back(causal_bias(queries, in.k.size(2), at::kCPU)
                       .to(at::kDouble)
                       .expand({in.q.size(0), heads, queries, in.k.size(2)}));
  }
  const Tensor scores = at::matmul(in.q.to(at::kDouble), at::cat(k, 2).transpose(-1, -2)) /
                        std::sqrt(static_cast<double>(in.q.size(-1)));
  return at::matmul(at::softmax(scores + at::cat(bias, -1), -1), at::cat(v, 2));
}

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

// Memories in codes.
struct CodesCase {
  Case shape;
  int64_t bits, group;
};
void PrintTo(const CodesCase& c, std::ostream* out) {
  PrintTo(c.shape, out);
  *out << " bits " << c.bits << " group " << c.group;
}

/// Codes in place of a memory's keys and values: views, as a store that has dropped its oldest gives them,
/// with other channels large and groups of every length.
Inputs in_codes(const CodesCase& c, at::ScalarType type) {
  constexpr int64_t kDropped = 3, kRoom = 2;
  Case shape = c.shape;
  shape.entries += kDropped + kRoom;
  Inputs in = make(shape, type);
  Tensor k = in.memory.k.to(at::kFloat), v = in.memory.v.to(at::kFloat) + 1.5;
  k.select(3, c.shape.dim / 2).mul_(3).add_(8);
  const int64_t entries = c.shape.entries;
  const auto beta = in.memory.beta;
  in.memory = {{}, {}, {}, quantise(k, c.bits, c.group), quantise(v, c.bits, 0)};
  in.memory = in.memory.narrow(kDropped, entries);
  if (beta.defined()) {
    in.memory.beta = beta.narrow(2, kDropped, entries).clone();
    in.memory.beta.select(2, entries / 2).fill_(-std::numeric_limits<float>::infinity());
  }
  return in;
}
Inputs decoded(Inputs in, at::ScalarType type) {
  in.memory = in.memory.decoded(type);
  return in;
}

class CodesTest : public ::testing::TestWithParam<CodesCase> {};

TEST_P(CodesTest, EqualTheDefinitionOnWhatTheyStandFor) {
  at::manual_seed(5);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Inputs in = in_codes(GetParam(), type);
    const Tensor expected = by_definition(decoded(in, at::kDouble));
    const Tensor got = memory_attention(in.q, in.memory, in.k, in.v);
    EXPECT_EQ(got.scalar_type(), type);
    // Values reach about 6, scores about 30.
    EXPECT_LT(max_difference(got, expected), type == at::kFloat ? 2e-5 : 0x1.02p-6);
    EXPECT_LT(max_difference(memory_attention_reference(in.q, in.memory, in.k, in.v), expected),
              type == at::kFloat ? 2e-5 : 0.3);
    const int threads = at::get_num_threads();
    at::set_num_threads(3);
    EXPECT_TRUE(at::equal(memory_attention(in.q, in.memory, in.k, in.v), got));
    at::set_num_threads(threads);
  }
}

TEST_P(CodesTest, QueriesAndOpenKeysGetTheGradientsOfTheDefinition) {
  for (const auto type : {at::kDouble, at::kFloat}) {
    at::manual_seed(6);
    Inputs in = in_codes(GetParam(), type);
    std::vector<Tensor> leaves;
    for (Tensor* t : {&in.q, &in.k, &in.v, &in.memory.beta}) {
      if (!t->defined()) continue;
      if (t == &in.memory.beta) *t = t->to(type).clamp_min(-30.0);
      leaves.push_back(t->set_requires_grad(true));
    }
    const Tensor weighting = at::randn(in.q.sizes(), type);
    const auto expected =
        torch::autograd::grad({(by_definition(decoded(in, at::kDouble)) * weighting).sum()}, leaves);
    const auto got =
        torch::autograd::grad({(memory_attention(in.q, in.memory, in.k, in.v) * weighting).sum()}, leaves);
    const auto plain = torch::autograd::grad(
        {(memory_attention_reference(in.q, in.memory, in.k, in.v) * weighting).sum()}, leaves);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const double size = expected[i].abs().max().item<double>();
      // Scores reach about 30, so that the plain form in fp32 is off as well: three times of that at most.
      EXPECT_LE(max_difference(got[i], expected[i]),
                type == at::kDouble
                    ? 1e-10
                    : std::max(2e-5 * std::max(1.0, size), 3 * max_difference(plain[i], expected[i])))
          << type << " leaf " << i;
    }
  }
}

const auto kCodesCases = ::testing::Values(CodesCase{{1, 1, 1, 1, 70, 3, 64, false, false}, 8, 64},
                                           CodesCase{{1, 1, 1, 1, 70, 3, 64, false, false}, 4, 64},
                                           CodesCase{{2, 2, 2, 1, 300, 5, 128, true, false}, 8, 64},
                                           CodesCase{{2, 2, 2, 1, 300, 5, 128, true, false}, 4, 64},
                                           CodesCase{{2, 4, 2, 9, 129, 30, 64, true, false}, 8, 0},
                                           CodesCase{{2, 4, 2, 9, 129, 30, 64, true, false}, 4, 0},
                                           CodesCase{{2, 6, 2, 37, 21, 50, 34, true, false}, 8, 4},
                                           CodesCase{{1, 6, 3, 37, 140, 50, 34, true, true}, 4, 7},
                                           CodesCase{{1, 4, 1, 70, 257, 0, 128, false, false}, 8, 100},
                                           CodesCase{{1, 8, 1, 19, 64, 19, 128, false, false}, 4, 1},
                                           CodesCase{{1, 2, 2, 67, 200, 67, 64, true, false}, 4, 16},
                                           CodesCase{{2, 1, 1, 3, 5, 7, 2, true, false}, 4, 3},
                                           CodesCase{{1, 2, 1, 5, 131, 9, 10, true, true}, 8, 32});
INSTANTIATE_TEST_SUITE_P(OddSizes, CodesTest, kCodesCases);

class CodesOnCardTest : public testing::OnDeviceTest<CodesCase> {
 protected:
  Inputs there(const Inputs& in) const {
    const auto moved = [&](const Tensor& t) { return t.defined() ? t.to(device()) : t; };
    const auto codes = [&](const QuantisedTensor& x) {
      return QuantisedTensor{moved(x.codes), moved(x.low), moved(x.step), moved(x.row_of), x.bits};
    };
    return {moved(in.q), moved(in.k), moved(in.v),
            MemoryPart{{}, {}, moved(in.memory.beta), codes(in.memory.k_codes), codes(in.memory.v_codes)}};
  }
};

TEST_P(CodesOnCardTest, ResultAndGradientsEqualTheDefinitionOnWhatTheyStandFor) {
  at::manual_seed(7);
  Inputs in = in_codes(shape(), type());
  if (in.memory.beta.defined()) in.memory.beta.clamp_(-30, 10);
  Inputs card = there(in);
  const auto leaves = [](Inputs& of) {
    std::vector<Tensor> all;
    for (Tensor* t : {&of.q, &of.k, &of.v, &of.memory.beta}) {
      if (t->defined()) all.push_back(t->set_requires_grad(true));
    }
    return all;
  };
  const std::vector<Tensor> exact_leaves = leaves(in), card_leaves = leaves(card);
  // The kernel rounds what it decodes to its type.
  const Tensor expected = by_definition(decoded(in, type())), weighting = at::randn(in.q.sizes()).to(type());
  const Tensor out = memory_attention(card.q, card.memory, card.k, card.v);
  const double rounding = type() == at::kFloat ? 100 * 0x1p-23 : 0x1p-7;
  EXPECT_LE(max_difference(out.detach().cpu(), expected), 8 * rounding);
  const auto exact = torch::autograd::grad({(expected * weighting.to(at::kDouble)).sum()}, exact_leaves),
             got = torch::autograd::grad({out}, card_leaves, {weighting.to(device())});
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double size = exact[i].to(at::kDouble).abs().max().item<double>();
    // Scores' gradients are rounded before they meet keys of up to 20.
    EXPECT_LE(max_difference(got[i].cpu(), exact[i]), 8 * rounding * std::max(1.0, size)) << "leaf " << i;
  }
  const at::NoGradGuard no_grad;
  EXPECT_LE(max_difference(memory_attention(card.q, card.memory, card.k, card.v).cpu(), expected),
            8 * rounding);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, CodesOnCardTest,
                         ::testing::Combine(kCodesCases, testing::kCards,
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

TEST(MemoryAttentionTest, CodesThatDoNotBelongTogetherAreRefused) {
  const Tensor q = at::zeros({1, 4, 3, 8}), k = at::zeros({1, 2, 5, 8});
  const QuantisedTensor keys = quantise(k, 8, 2), values = quantise(k, 8, 0);
  EXPECT_NO_THROW(memory_attention(q, {{{}, {}, {}, keys, values}}, k, k));
  EXPECT_THROW(memory_attention(q, {{{}, {}, {}, keys, {}}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{{}, {}, {}, keys, keys}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{{}, {}, {}, keys, quantise(k, 4, 0)}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{{}, {}, {}, keys, values.narrow(0, 4)}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{k, k, {}, keys, values}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{{}, {}, at::zeros({1, 2, 6}), keys, values}}, k, k), ShapeError);
  EXPECT_THROW(memory_attention(q, {{{}, {}, {}, quantise(at::zeros({1, 2, 5, 6}), 8, 2), values}}, k, k),
               ShapeError);
}

// Memories in several parts.
enum class Mass { none, per_key_head, per_query_head };
struct PartShape {
  int64_t entries;
  int64_t bits = 0, group = 0;
  Mass mass = Mass::none;
};
struct PartsCase {
  Case shape;  // its entries and beta are the parts'
  std::vector<PartShape> parts;
};
void PrintTo(const PartsCase& c, std::ostream* out) {
  PrintTo(c.shape, out);
  for (const PartShape& part : c.parts)
    *out << " part " << part.entries << " bits " << part.bits << " mass " << static_cast<int>(part.mass);
}

struct InParts {
  Inputs in;  // without a memory
  Memory memory;

  std::vector<Tensor> leaves() {
    std::vector<Tensor> all;
    const auto add = [&](Tensor& t) {
      if (t.defined() && t.numel() > 0) all.push_back(t.set_requires_grad(true));
    };
    add(in.q), add(in.k), add(in.v);
    for (MemoryPart& part : memory.parts) add(part.k), add(part.v), add(part.beta);
    return all;
  }
};

InParts make(const PartsCase& c, at::ScalarType type, bool hides) {
  InParts out;
  Case open = c.shape;
  open.entries = 0;
  out.in = make(open, type);
  for (const PartShape& shape : c.parts) {
    Case own = c.shape;
    own.entries = shape.entries;
    own.with_beta = shape.mass != Mass::none;
    own.beta_per_query_head = shape.mass == Mass::per_query_head;
    MemoryPart part = make(own, type).memory;
    if (part.beta.defined() && !hides)
      part.beta = (part.beta / 10).clamp(-3, 3).to(type == at::kDouble ? at::kDouble : at::kFloat);
    if (shape.bits > 0)
      part = {{}, {}, part.beta, quantise(part.k, shape.bits, shape.group), quantise(part.v, shape.bits, 0)};
    out.memory.parts.push_back(part);
  }
  return out;
}

/// The definition, of all parts beside each other; codes as numbers of `type`.
Tensor by_definition(const InParts& in, at::ScalarType type) {
  Inputs one = in.in;
  std::vector<Tensor> k, v, beta;
  const int64_t heads = one.q.size(1);
  for (const MemoryPart& given : in.memory.parts) {
    if (given.size() == 0) continue;
    const MemoryPart part = given.decoded(type);
    k.push_back(part.k.to(at::kDouble)), v.push_back(part.v.to(at::kDouble));
    const Tensor mass = part.beta.defined() ? part.beta.to(at::kDouble)
                                            : at::zeros({part.k.size(0), heads, part.size()}, at::kDouble);
    beta.push_back(mass.repeat_interleave(heads / mass.size(1), 1));
  }
  one.memory = {at::cat(k, 2), at::cat(v, 2), at::cat(beta, 2)};
  return by_definition(one);
}

const PartsCase kPartsCases[] = {
    {{2, 4, 2, 9, 0, 30, 64, false, false},
     {{70, 0, 0, Mass::per_key_head}, {40, 4, 64}, {0}, {33, 8, 0, Mass::per_key_head}, {5}}},
    {{1, 4, 2, 37, 0, 50, 128, false, false},
     {{200, 8, 64}, {3, 0, 0, Mass::per_query_head}, {130, 0, 0, Mass::per_key_head}, {1}, {100, 4, 100}}},
    {{2, 2, 2, 1, 0, 300, 16, false, false}, {{9}, {140, 0, 0, Mass::per_key_head}}},
    {{1, 2, 1, 6, 0, 0, 10, false, false}, {{13, 8, 4}, {11, 0, 0, Mass::per_key_head}, {129}}},
    {{1, 2, 2, 70, 0, 90, 64, false, false}, {{10, 4, 10}, {10, 4, 10}, {10, 4, 10}, {65, 4, 64}}},
};

class PartsTest : public ::testing::TestWithParam<PartsCase> {};

TEST_P(PartsTest, AreReadAsIfTheyWereOne) {
  at::manual_seed(11);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const InParts x = make(GetParam(), type, /*hides=*/true);
    const Tensor got = memory_attention(x.in.q, x.memory, x.in.k, x.in.v);
    EXPECT_LT(max_difference(got, by_definition(x, at::kDouble)), type == at::kFloat ? 2e-5 : 0x1.02p-6);
    EXPECT_LT(
        max_difference(memory_attention_reference(x.in.q, x.memory, x.in.k, x.in.v), by_definition(x, type)),
        type == at::kFloat ? 2e-5 : 0.06);
    // Cut in other places it is the same memory, and in none the same numbers.
    Memory cut;
    for (const MemoryPart& part : x.memory.parts) {
      const int64_t first = part.size() / 3;
      cut.parts.push_back(part.narrow(0, first));
      cut.parts.push_back(part.narrow(first, part.size() - first));
    }
    EXPECT_LT(max_difference(memory_attention(x.in.q, cut, x.in.k, x.in.v), got),
              type == at::kFloat ? 2e-5 : 0x1.02p-6);
    EXPECT_EQ(x.memory.narrow(0, x.memory.size()).size(), x.memory.size());
    const Memory some = x.memory.narrow(5, x.memory.size() - 7);
    EXPECT_EQ(some.size(), x.memory.size() - 7);
    for (int64_t b = 0; b < x.in.q.size(0); ++b) {
      const auto row = [b](const Tensor& t) { return t.defined() ? t.narrow(0, b, 1) : t; };
      EXPECT_TRUE(at::equal(memory_attention(row(x.in.q), x.memory.of_sequence(b), row(x.in.k), row(x.in.v)),
                            row(got)));
    }
  }
}

TEST_P(PartsTest, GradientsEqualThoseOfTheDefinition) {
  at::manual_seed(12);
  InParts x = make(GetParam(), at::kDouble, /*hides=*/false);
  const std::vector<Tensor> leaves = x.leaves();
  const Tensor weighting = at::randn(x.in.q.sizes(), at::kDouble);
  const auto expected = torch::autograd::grad({(by_definition(x, at::kDouble) * weighting).sum()}, leaves);
  for (const int64_t block_bytes : {int64_t{1} << 26, int64_t{20000}}) {
    const Tensor out = memory_attention_reference(x.in.q, x.memory, x.in.k, x.in.v, block_bytes);
    const auto got = torch::autograd::grad({(out * weighting).sum()}, leaves);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      EXPECT_LT(max_difference(got[i], expected[i]), 1e-10) << "leaf " << i << " blocks " << block_bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(Mixed, PartsTest, ::testing::ValuesIn(kPartsCases));

class PartsOnCardTest : public testing::OnDeviceTest<PartsCase> {
 protected:
  InParts there(const InParts& x) const {
    const auto moved = [&](const Tensor& t) { return t.defined() ? t.detach().to(device()) : t; };
    const auto codes = [&](const QuantisedTensor& q) {
      return QuantisedTensor{moved(q.codes), moved(q.low), moved(q.step), moved(q.row_of), q.bits};
    };
    InParts out;
    out.in = {moved(x.in.q), moved(x.in.k), moved(x.in.v), {}};
    for (const MemoryPart& part : x.memory.parts)
      out.memory.parts.push_back(
          {moved(part.k), moved(part.v), moved(part.beta), codes(part.k_codes), codes(part.v_codes)});
    return out;
  }
};

TEST_P(PartsOnCardTest, ResultAndGradientsEqualTheDefinition) {
  at::manual_seed(13);
  InParts x = make(shape(), type(), /*hides=*/false), card = there(x);
  const Tensor expected = by_definition(x, type());
  const double rounding = type() == at::kFloat ? 100 * 0x1p-23 : 0x1p-7;
  EXPECT_LE(max_difference(memory_attention(card.in.q, card.memory, card.in.k, card.in.v).cpu(), expected),
            4 * rounding);
  const std::vector<Tensor> exact_leaves = x.leaves(), card_leaves = card.leaves();
  const Tensor weighting = at::randn(x.in.q.sizes()).to(type());
  const auto exact =
      torch::autograd::grad({(by_definition(x, type()) * weighting.to(at::kDouble)).sum()}, exact_leaves);
  const auto got = torch::autograd::grad({memory_attention(card.in.q, card.memory, card.in.k, card.in.v)},
                                         card_leaves, {weighting.to(device())});
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double size = exact[i].to(at::kDouble).abs().max().item<double>();
    EXPECT_LE(max_difference(got[i].cpu(), exact[i]), 8 * rounding * std::max(1.0, size)) << "leaf " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Mixed, PartsOnCardTest,
                         ::testing::Combine(::testing::ValuesIn(kPartsCases), testing::kCards,
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

TEST(MemoryAttentionTest, PartsThatDoNotBelongTogetherAreRefused) {
  const Tensor q = at::zeros({1, 4, 3, 8}), two = at::zeros({1, 2, 5, 8}), four = at::zeros({1, 4, 5, 8});
  Memory memory;
  memory.parts = {{two, two}, {four, four}};
  EXPECT_THROW(memory_attention(q, memory, {}, {}), ShapeError);
  memory.parts = {{two, two}, {}};
  EXPECT_NO_THROW(memory_attention(q, memory, two, two));
  EXPECT_THROW(memory_attention(q, memory, four, four), ShapeError);
  memory.parts = {{two, two}, {two, two, at::zeros({1, 2, 6})}};
  EXPECT_THROW(memory_attention(q, memory, two, two), ShapeError);
}

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

/// The kernel over `parts` of one key head, in calls of `split` rows; queries [group, Q, E].
template <class T>
Tensor in_calls(const Tensor& q, const std::vector<kernels::AttentionPart<T>>& parts, int64_t split) {
  const int64_t group = q.size(0), queries = q.size(1), dim = q.size(2), rows = group * queries;
  Tensor out = at::empty_like(q);
  std::vector<float> scratch(
      static_cast<std::size_t>(kernels::attention_scratch(std::min(rows, split), group, dim)));
  for (int64_t row = 0; row < rows; row += split) {
    kernels::attention<T>({.q = static_cast<const T*>(q.const_data_ptr()),
                           .out = static_cast<T*>(out.mutable_data_ptr()),
                           .q_head_stride = q.stride(0),
                           .q_stride = q.stride(1),
                           .out_head_stride = out.stride(0),
                           .out_stride = out.stride(1),
                           .group = group,
                           .queries = queries,
                           .dim = dim,
                           .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(dim))),
                           .parts = parts.data(),
                           .num_parts = static_cast<int64_t>(parts.size()),
                           .scratch = scratch.data()},
                          row, std::min(rows, row + split));
  }
  return out;
}

template <class T>
void many_parts_equal_the_definition(int64_t group, int64_t queries, int64_t dim) {
  const auto type = sizeof(T) == sizeof(float) ? at::kFloat : at::kBFloat16;
  const Tensor q = at::randn({group, queries, dim}).to(type);
  std::vector<kernels::AttentionPart<T>> parts;
  std::vector<Tensor> kept, all_k, all_v, all_beta;
  const std::vector<int64_t> sizes = {3, 1, 100, 0, 90, 5, 200, 7, 1, queries + 20};
  for (std::size_t p = 0; p < sizes.size(); ++p) {
    // Every third part in codes, every other with masses; the last is causal.
    const int64_t keys = sizes[p];
    const bool causal = p + 1 == sizes.size(), coded = p % 3 == 2, per_head = p % 4 == 2;
    const Tensor k = at::randn({1, 1, keys, dim}), v = at::randn({1, 1, keys, dim});
    const Tensor beta = at::randn({per_head ? group : 1, keys}) * 3;
    kernels::AttentionPart<T> part{.keys = keys, .causal = causal};
    Tensor k_there = k.to(type), v_there = v.to(type);
    if (coded) {
      const QuantisedTensor k_codes = quantise(k, p % 2 == 0 ? 8 : 4, p == 2 ? 16 : 0),
                            v_codes = quantise(v, k_codes.bits, 0);
      k_there = dequantise(k_codes, at::kDouble), v_there = dequantise(v_codes, at::kDouble);
      const auto codes = [&](const QuantisedTensor& x) {
        for (const Tensor& t : {x.codes, x.low, x.step, x.row_of}) kept.push_back(t);
        return kernels::AttentionCodes{
            .codes = x.codes.template const_data_ptr<uint8_t>(),
            .stride = x.codes.stride(2),
            .low = static_cast<const uint16_t*>(x.low.const_data_ptr()),
            .step = static_cast<const uint16_t*>(x.step.const_data_ptr()),
            .scale_stride = x.low.stride(2),
            .scale_row = x.row_of.defined() ? x.row_of.template const_data_ptr<int32_t>() : nullptr};
      };
      part.bits = static_cast<int>(k_codes.bits), part.k_codes = codes(k_codes),
      part.v_codes = codes(v_codes);
    } else {
      part.k = static_cast<const T*>(k_there.const_data_ptr()), part.k_stride = dim;
      part.v = static_cast<const T*>(v_there.const_data_ptr()), part.v_stride = dim;
    }
    if (p % 2 == 0) part.beta = beta.const_data_ptr<float>(), part.beta_stride = per_head ? keys : 0;
    parts.push_back(part);
    for (const Tensor& t : {k_there, v_there, beta}) kept.push_back(t);
    all_k.push_back(k_there.to(at::kDouble)), all_v.push_back(v_there.to(at::kDouble));
    Tensor bias =
        causal ? causal_bias(queries, keys, at::kCPU).to(at::kDouble) : at::zeros({1, keys}, at::kDouble);
    if (p % 2 == 0) bias = bias + beta.to(at::kDouble).unsqueeze(1);
    all_beta.push_back(bias.expand({group, queries, keys}));
  }
  const Tensor k = at::cat(all_k, 2)[0][0], v = at::cat(all_v, 2)[0][0];
  const Tensor scores =
      at::matmul(q.to(at::kDouble), k.t()) / std::sqrt(static_cast<double>(dim)) + at::cat(all_beta, -1);
  const Tensor expected = at::matmul(at::softmax(scores, -1), v), got = in_calls<T>(q, parts, 256);
  EXPECT_LT(max_difference(got, expected), type == at::kFloat ? 1e-5 : 0x1.02p-7);
  for (const int64_t split : {32, 96}) EXPECT_TRUE(at::equal(in_calls<T>(q, parts, split), got)) << split;
}

TEST(MemoryAttentionTest, ManyPartsShareBlocksAndCallsMayBeSplit) {
  at::manual_seed(8);
  for (const auto& [group, queries, dim] :
       {std::array<int64_t, 3>{1, 1, 64}, {11, 1, 64}, {2, 6, 64}, {1, 33, 34}, {1, 70, 34}, {2, 150, 128}}) {
    many_parts_equal_the_definition<float>(group, queries, dim);
    many_parts_equal_the_definition<kernels::Bf16>(group, queries, dim);
  }
}

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

/// Counts what LibTorch's CPU tensors hold while it lives.
class CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : below_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, kPriority); }
  ~CountingAllocator() override { c10::SetCPUAllocator(below_, kPriority); }
  at::DataPtr allocate(size_t size) override {
    now_ += static_cast<int64_t>(size);
    for (int64_t peak = peak_; now_ > peak && !peak_.compare_exchange_weak(peak, now_);) {
    }
    at::DataPtr data = below_->allocate(size);
    auto* block = new Block{this, std::move(data), static_cast<int64_t>(size)};
    return {block->data.get(), block, &release, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    below_->copy_data(to, from, count);
  }
  /// The most that lived at once since the last call, beyond what lived then.
  int64_t peak_since(int64_t before) const { return peak_ - before; }
  int64_t mark() {
    peak_ = now_.load();
    return now_;
  }

 private:
  static constexpr uint8_t kPriority = 100;
  struct Block {
    CountingAllocator* owner;
    at::DataPtr data;
    int64_t size;
  };
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    block->owner->now_ -= block->size;
    delete block;
  }
  c10::Allocator* below_;
  std::atomic<int64_t> now_ = 0, peak_ = 0;
};

TEST(MemoryAttentionTest, MemoryStaysFarBelowQueriesTimesKeys) {
  // Scores of 4 heads, 1024 queries and 32768 keys would be 512 MiB, one mask 128 MiB.
  constexpr int64_t kMiB = 1 << 20;
  at::manual_seed(5);
  Tensor q = at::randn({1, 4, 1024, 16}), k = at::randn({1, 4, 32768, 16});
  const Tensor beta = at::randn({1, 4, 32768});
  const int64_t output = q.numel() * 4;
  CountingAllocator counter;
  int64_t before = counter.mark();
  memory_attention(q, {}, k, k);
  EXPECT_LE(counter.peak_since(before), output + kMiB);
  before = counter.mark();
  memory_attention(q, {{k, k, beta}}, k, k);
  EXPECT_LE(counter.peak_since(before), output + kMiB);
  before = counter.mark();
  memory_attention_reference(q, {}, k, k);
  EXPECT_LE(counter.peak_since(before), 256 * kMiB);
  q.set_requires_grad(true), k.set_requires_grad(true);
  before = counter.mark();
  memory_attention(q, {{k, k, beta}}, k, k).sum().backward();
  EXPECT_LE(counter.peak_since(before), 8 * k.numel() * 4);  // four gradients of k, and their sums
  const Tensor in_double = q.detach().to(at::kDouble).narrow(2, 0, 256).clone().set_requires_grad(true),
               keys = k.detach().to(at::kDouble);
  before = counter.mark();  // scores: 256 MiB, in five blocks
  memory_attention(in_double, {{keys, keys, beta}}, {}, {}).sum().backward();
  EXPECT_LE(counter.peak_since(before), 256 * kMiB);
}

}  // namespace
}  // namespace focus::ops
