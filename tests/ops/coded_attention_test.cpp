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

TEST(CodedAttentionTest, CodesThatDoNotBelongTogetherAreRefused) {
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

}  // namespace
}  // namespace focus::ops
