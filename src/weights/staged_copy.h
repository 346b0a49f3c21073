// From a mapped file to a card: through two buffers of pinned memory in turn, so that one is filled from the
// file while the other is on its way.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "focus/formats/tensor_file.h"

namespace focus::weights {

/// Two buffers that something takes on from here.
class StagingLane {
 public:
  virtual ~StagingLane() = default;
  /// The next buffer in turn, at least `num_bytes` long, once what it held before has left it.
  virtual std::span<std::byte> next_buffer(std::size_t num_bytes) = 0;
  /// Sends the first bytes of that buffer to bytes [offset, offset + num_bytes) of `target`, a uint8 vector.
  /// Does not wait.
  virtual void send(const at::Tensor& target_N, std::size_t offset, std::size_t num_bytes) = 0;
};

/// All of `source` to `target`, chunk by chunk.
void send_in_chunks(std::span<const std::byte> source, const at::Tensor& target_N, std::size_t chunk,
                    StagingLane& lane);

/// The lanes to the cards of this process: a stream of its own for each, and buffers of the host beside it.
class StagedCopy {
 public:
  StagedCopy();
  ~StagedCopy();
  /// The view's tensor on a card, in the file's type: there for whatever that card's stream does next.
  at::Tensor on(const at::Device& device, const formats::TensorView& view);

 private:
  class CardLane;
  std::map<std::string, std::unique_ptr<CardLane>> lanes_;  // by device
};

}  // namespace focus::weights
