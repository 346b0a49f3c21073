#include "staged_copy.h"

#include <ATen/Parallel.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "focus/weights/tensor_view.h"

namespace focus::weights {
namespace {

using at::Tensor;

constexpr std::size_t kChunk = std::size_t{32} << 20;
constexpr int64_t kPiece = int64_t{1} << 20;  // of a chunk, for one thread

/// With several threads: one of them alone reads a mapping slower than a card takes it.
void copy_bytes(std::span<const std::byte> from, std::byte* to) {
  const auto pieces = (static_cast<int64_t>(from.size()) + kPiece - 1) / kPiece;
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<std::size_t>(begin * kPiece),
               last = std::min(static_cast<std::size_t>(end * kPiece), from.size());
    std::memcpy(to + first, from.data() + first, last - first);
  });
}

}  // namespace

void send_in_chunks(std::span<const std::byte> source, const Tensor& target_N, std::size_t chunk,
                    StagingLane& lane) {
  for (std::size_t offset = 0; offset < source.size(); offset += chunk) {
    const auto part = source.subspan(offset, std::min(chunk, source.size() - offset));
    copy_bytes(part, lane.next_buffer(part.size()).data());
    lane.send(target_N, offset, part.size());
  }
}

class StagedCopy::CardLane final : public StagingLane {
 public:
  explicit CardLane(const at::Device& device)
      : there_(device.type()),
        device_(device),
        stream_(there_.getStreamFromGlobalPool(device)),
        buffers_{Buffer{{}, c10::Event(device.type())}, Buffer{{}, c10::Event(device.type())}} {
    const auto pinned = at::TensorOptions().dtype(at::kByte).pinned_memory(true);
    for (Buffer& buffer : buffers_) buffer.bytes = at::empty({static_cast<int64_t>(kChunk)}, pinned);
  }
  /// What the card's stream did before is done before the next chunk is written.
  void begin() {
    c10::Event before(device_.type());
    before.record(there_.getStream(device_));
    before.block(stream_);
  }
  std::span<std::byte> next_buffer(std::size_t num_bytes) override {
    at_ = 1 - at_;
    Buffer& buffer = buffers_[at_];
    if (buffer.left.was_marked_for_recording()) buffer.left.synchronize();
    return {reinterpret_cast<std::byte*>(buffer.bytes.mutable_data_ptr<uint8_t>()), num_bytes};
  }
  void send(const Tensor& target_N, std::size_t offset, std::size_t num_bytes) override {
    Buffer& buffer = buffers_[at_];
    const auto size = static_cast<int64_t>(num_bytes);
    const c10::StreamGuard guard(stream_);
    target_N.narrow(0, static_cast<int64_t>(offset), size)
        .copy_(buffer.bytes.narrow(0, 0, size), /*non_blocking=*/true);
    buffer.left.record(stream_);
  }
  /// The card's stream goes on when the last chunk is there.
  void end() { buffers_[at_].left.block(there_.getStream(device_)); }

 private:
  struct Buffer {
    Tensor bytes;
    c10::Event left;
  };
  c10::impl::VirtualGuardImpl there_;
  at::Device device_;
  c10::Stream stream_;
  std::array<Buffer, 2> buffers_;
  std::size_t at_ = 0;
};

StagedCopy::StagedCopy() = default;
StagedCopy::~StagedCopy() = default;

Tensor StagedCopy::on(const at::Device& device, const formats::TensorView& view) {
  Tensor out = at::empty(view.shape, at::TensorOptions().dtype(scalar_type(view.dtype)).device(device));
  if (out.numel() == 0) return out;
  auto& lane = lanes_[device.str()];
  if (lane == nullptr) lane = std::make_unique<CardLane>(device);
  const c10::DeviceGuard guard(device);
  lane->begin();
  send_in_chunks({view.data, static_cast<std::size_t>(view.num_bytes())}, out.flatten().view(at::kByte),
                 kChunk, *lane);
  lane->end();
  return out;
}

}  // namespace focus::weights
