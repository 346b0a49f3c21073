#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>

#include "focus/ops/attention.h"

namespace focus::ops {
namespace {

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

TEST(AttentionFootprintTest, MemoryStaysFarBelowQueriesTimesKeys) {
  // Scores of 4 heads, 1024 queries and 32768 keys would be 512 MiB, one mask 128 MiB.
  constexpr int64_t kMiB = 1 << 20;
  at::manual_seed(5);
  at::Tensor q = at::randn({1, 4, 1024, 16}), k = at::randn({1, 4, 32768, 16});
  const at::Tensor beta = at::randn({1, 4, 32768});
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
  const at::Tensor in_double = q.detach().to(at::kDouble).narrow(2, 0, 256).clone().set_requires_grad(true),
                   keys = k.detach().to(at::kDouble);
  before = counter.mark();  // scores: 256 MiB, in five blocks
  memory_attention(in_double, {{keys, keys, beta}}, {}, {}).sum().backward();
  EXPECT_LE(counter.peak_since(before), 256 * kMiB);
}

}  // namespace
}  // namespace focus::ops
