// Chunks of a file on their way to a card, with a card that is slow: what it has not taken yet must not be
// written over.
#include "staged_copy.h"

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <vector>

namespace focus::weights {
namespace {

using at::Tensor;

/// Takes a buffer's bytes only when that buffer is asked for again, or at the end.
class SlowLane final : public StagingLane {
 public:
  explicit SlowLane(std::size_t chunk) {
    for (auto& buffer : buffers_) buffer.resize(chunk);
  }
  std::span<std::byte> next_buffer(std::size_t num_bytes) override {
    at_ = 1 - at_;
    if (sent_.size() == 2) deliver();
    return std::span(buffers_[at_]).first(num_bytes);
  }
  void send(const Tensor& target_N, std::size_t offset, std::size_t num_bytes) override {
    sent_.push_back({at_, target_N, offset, num_bytes});
    order_.push_back(at_);
  }
  void finish() {
    while (!sent_.empty()) deliver();
  }
  const std::vector<std::size_t>& order() const { return order_; }

 private:
  struct Chunk {
    std::size_t buffer;
    Tensor target;
    std::size_t offset, num_bytes;
  };
  void deliver() {
    const Chunk& chunk = sent_.front();
    std::memcpy(chunk.target.mutable_data_ptr<uint8_t>() + chunk.offset, buffers_[chunk.buffer].data(),
                chunk.num_bytes);
    sent_.pop_front();
  }
  std::array<std::vector<std::byte>, 2> buffers_;
  std::size_t at_ = 0;
  std::deque<Chunk> sent_;
  std::vector<std::size_t> order_;
};

TEST(StagedCopyTest, SendsEveryByteThroughTwoBuffersInTurn) {
  constexpr std::size_t kChunk = 3 << 20;  // pieces for several threads, the last one short
  for (const std::size_t size : {std::size_t{1}, kChunk - 1, kChunk, kChunk + 1, 4 * kChunk + 12'345}) {
    const Tensor source = at::randint(0, 256, {static_cast<int64_t>(size)}, at::kByte),
                 target = at::zeros_like(source);
    SlowLane lane(kChunk);
    send_in_chunks({reinterpret_cast<const std::byte*>(source.const_data_ptr()), size}, target, kChunk, lane);
    lane.finish();
    EXPECT_TRUE(at::equal(target, source)) << size;
    ASSERT_EQ(lane.order().size(), (size + kChunk - 1) / kChunk) << size;
    for (std::size_t i = 1; i < lane.order().size(); ++i) EXPECT_NE(lane.order()[i], lane.order()[i - 1]);
  }
}

TEST(StagedCopyTest, SendsNothingOfNothing) {
  SlowLane lane(8);
  send_in_chunks({}, at::empty({0}, at::kByte), 8, lane);
  EXPECT_TRUE(lane.order().empty());
}

}  // namespace
}  // namespace focus::weights
