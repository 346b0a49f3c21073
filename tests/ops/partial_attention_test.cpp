#include "focus/ops/partial_attention.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <vector>

#include "support/devices.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::max_difference;

struct Case {
  int64_t batch, heads, key_heads, queries, entries, keys, dim;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "B" << c.batch << " H" << c.heads << " G" << c.key_heads << " Q" << c.queries << " P" << c.entries
       << " S" << c.keys << " E" << c.dim;
}

class PartialAttentionTest : public testing::OnDeviceTest<Case> {
 protected:
  void SetUp() override {
    OnDeviceTest::SetUp();
    at::manual_seed(1);
    const Case& c = shape();
    q_ = at::randn({c.batch, c.heads, c.queries, c.dim});
    memory_.k = at::randn({c.batch, c.key_heads, c.entries, c.dim});
    memory_.v = at::randn_like(memory_.k);
    memory_.beta = at::randn({c.batch, c.key_heads, c.entries}) * 5;
    k_ = at::randn({c.batch, c.key_heads, c.keys, c.dim});
    v_ = at::randn_like(k_);
    for (Tensor* t : {&q_, &memory_.k, &memory_.v, &k_, &v_}) *t = t->to(type());
  }
  std::vector<Tensor> inputs(const at::Device& device, bool exact, bool tracked) const {
    std::vector<Tensor> out;
    for (const Tensor& t : {q_, memory_.k, memory_.v, memory_.beta, k_, v_})
      out.push_back((exact ? t.to(at::kDouble) : t.clone()).to(device).set_requires_grad(tracked));
    return out;
  }
  static Tensor whole(const std::vector<Tensor>& in) {
    return memory_attention_reference(in[0], {{in[1], in[2], in[3]}}, in[4], in[5]);
  }
  /// The keys, and the memory in two parts.
  static Tensor in_parts(const std::vector<Tensor>& in, int64_t block_bytes) {
    const int64_t first = in[1].size(2) / 3;
    const auto part = [&](int64_t begin, int64_t count) {
      const auto rows = [&](const Tensor& t) { return t.narrow(2, begin, count); };
      return partial_attention(in[0], {{rows(in[1]), rows(in[2]), rows(in[3])}}, {}, {}, block_bytes);
    };
    PartialAttention all = partial_attention(in[0], {}, in[4], in[5], block_bytes);
    all = merged(all, part(0, first));
    return merged(all, part(first, in[1].size(2) - first)).out;
  }
  double rounding() const { return type() == at::kFloat ? 100 * 0x1p-23 : 0x1p-7; }

  Tensor q_, k_, v_;
  MemoryPart memory_;
};

TEST_P(PartialAttentionTest, PartsGiveWhatAllKeysAtOnceDo) {
  const Tensor got = in_parts(inputs(device(), false, false), 1 << 16);
  EXPECT_EQ(got.scalar_type(), at::kFloat);
  EXPECT_LE(max_difference(got.cpu(), whole(inputs(at::kCPU, true, false))), 2 * rounding());
}

TEST_P(PartialAttentionTest, AndSoDoTheirGradients) {
  const auto leaves = inputs(device(), false, true), exact = inputs(at::kCPU, true, true);
  const Tensor weighting = at::randn(q_.sizes());
  const auto expected = torch::autograd::grad({whole(exact)}, exact, {weighting.to(at::kDouble)});
  const auto got = torch::autograd::grad({in_parts(leaves, 1 << 16)}, leaves, {weighting.to(device())});
  for (std::size_t i = 0; i < leaves.size(); ++i)
    EXPECT_LE(max_difference(got[i].cpu(), expected[i]),
              2 * rounding() * std::max(1.0, expected[i].abs().max().item<double>()))
        << "leaf " << i;
}

TEST_P(PartialAttentionTest, APartOfNoMassCountsForNothing) {
  const auto in = inputs(device(), false, false);
  const Tensor hidden = at::full_like(in[3], -std::numeric_limits<float>::infinity());
  const PartialAttention none = partial_attention(in[0], {{in[1], in[2], hidden}}, {}, {}),
                         some = partial_attention(in[0], {{in[1], in[2], in[3]}}, {}, {});
  EXPECT_TRUE(none.log_sum.le(-1e30).all().item<bool>());
  EXPECT_TRUE(none.out.eq(0).all().item<bool>());
  EXPECT_TRUE(merged(none, none).out.eq(0).all().item<bool>());
  for (const PartialAttention& both : {merged(none, some), merged(some, none)}) {
    EXPECT_TRUE(both.out.equal(some.out));
    EXPECT_LT(max_difference(both.log_sum.cpu(), some.log_sum.cpu()), 1e-6);
  }
}

// One query whose keys are shared out among blocks, more keys than a block's scores, shared heads.
INSTANTIATE_TEST_SUITE_P(OddSizes, PartialAttentionTest,
                         ::testing::Combine(::testing::Values(Case{1, 2, 2, 1, 700, 9, 64},
                                                              Case{2, 4, 2, 37, 300, 41, 20},
                                                              Case{1, 2, 1, 70, 600, 70, 128}),
                                            testing::kDevices, ::testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace focus::ops
