#pragma once

#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstdint>
#include <utility>

namespace focus::testing {

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
  int64_t now() const { return now_; }
  /// The most that lived at once since mark(), beyond what it returned.
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

}  // namespace focus::testing
