// What ops on a card make the host wait for, counted on the emulated one.
#include <gtest/gtest.h>

#include "focus/ops/attention.h"
#include "support/devices.h"
#include "support/emulated_card.h"
#include "support/tensors.h"

namespace focus::ops {
namespace {

using at::Tensor;
using testing::max_difference;

TEST(CardCountsTest, AttentionReadsViewsInPlaceAndWaitsForNothing) {
  if (const std::string reason = testing::missing(testing::TestDevice::emulated); !reason.empty())
    GTEST_SKIP() << reason;
  at::manual_seed(6);
  // [B, L, heads * 3 * dim] as one projection makes it, and entries at the start of a larger buffer.
  const Tensor qkv = at::randn({2, 70, 2 * 3 * 64}).to(at::kBFloat16), past = at::randn({2, 2, 200, 64}),
               beta = at::randn({2, 2, 90});
  const auto run = [](const Tensor& fused, const Tensor& buffer, const Tensor& mass) {
    const Tensor parts = fused.unflatten(-1, {2, 3, 64}).permute({3, 0, 2, 1, 4});
    const Tensor entries = buffer.narrow(2, 0, 90);
    return memory_attention(parts[0], {{entries, entries, mass}}, parts[1], parts[2]);
  };
  const Tensor entries = past.to(at::kBFloat16), expected = run(qkv, entries, beta);
  const Tensor qkv_there = qkv.to(testing::emulated_card()),
               past_there = entries.to(testing::emulated_card()),
               beta_there = beta.to(testing::emulated_card());
  testing::reset_card_counts();
  const Tensor got = run(qkv_there, past_there, beta_there);
  const testing::CardCounts counts = testing::card_counts();
  EXPECT_EQ(counts.reads, 0);
  EXPECT_EQ(counts.uploads, 0);
  EXPECT_LE(counts.allocations, 2);  // the result, and the shares of keys that are put together
  EXPECT_LE(max_difference(got.cpu(), expected), 4 * 0x1p-7);
}

}  // namespace
}  // namespace focus::ops
