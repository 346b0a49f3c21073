#include <gtest/gtest.h>

#include "focus/ops/attention.h"
#include "support/counting_allocator.h"

namespace focus::ops {
namespace {

TEST(AttentionFootprintTest, MemoryStaysFarBelowQueriesTimesKeys) {
  // Scores of 4 heads, 1024 queries and 32768 keys would be 512 MiB, one mask 128 MiB.
  constexpr int64_t kMiB = 1 << 20;
  at::manual_seed(5);
  at::Tensor q = at::randn({1, 4, 1024, 16}), k = at::randn({1, 4, 32768, 16});
  const at::Tensor beta = at::randn({1, 4, 32768});
  const int64_t output = q.numel() * 4;
  testing::CountingAllocator counter;
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
  const at::Tensor in_double = q.detach().to(at::kDouble).narrow(2, 0, 256).clone().set_requires_grad(true),
                   keys = k.detach().to(at::kDouble);
  before = counter.mark();  // scores: 256 MiB, in five blocks
  memory_attention(in_double, {{keys, keys, beta}}, {}, {}).sum().backward();
  EXPECT_LE(counter.peak_since(before), 256 * kMiB);
}

}  // namespace
}  // namespace focus::ops
