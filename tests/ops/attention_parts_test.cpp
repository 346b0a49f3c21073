#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>

#include "attention_case.h"
#include "focus/core/error.h"
#include "focus/kernels/attention.h"
#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using testing::max_difference;

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

TEST(AttentionPartsTest, PartsThatDoNotBelongTogetherAreRefused) {
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

TEST(AttentionPartsTest, ManyPartsShareBlocksAndCallsMayBeSplit) {
  at::manual_seed(8);
  for (const auto& [group, queries, dim] :
       {std::array<int64_t, 3>{1, 1, 64}, {11, 1, 64}, {2, 6, 64}, {1, 33, 34}, {1, 70, 34}, {2, 150, 128}}) {
    many_parts_equal_the_definition<float>(group, queries, dim);
    many_parts_equal_the_definition<kernels::Bf16>(group, queries, dim);
  }
}

}  // namespace
}  // namespace focus::ops
