// What the first blocks give, known before a stream runs them.
#pragma once

#include "focus/cache/stream_state.h"

namespace focus::cache {

/// Stands in a stream for the state of block n: the output of the first n + 1 blocks for the first tokens of
/// the stream is known, so that a forward pass takes it from here and runs none of them. Behind these tokens
/// the blocks go on from the states in which they were then. Streams of the same tokens so share their first
/// blocks.
class KnownOutput final : public LayerState {
 public:
  using States = std::vector<std::unique_ptr<LayerState>>;
  /// [B, L, D] of the last of the blocks, and what each of them carries on behind token L.
  KnownOutput(at::Tensor output_BLD, std::shared_ptr<const States> after)
      : output_BLD_(std::move(output_BLD)), after_(std::move(after)) {}
  /// How many tokens are known.
  int64_t length() const { return output_BLD_.size(1); }
  /// Of `count` tokens from `position` on; InternalError where they are not all known.
  at::Tensor rows(int64_t position, int64_t count) const;
  /// Copies of the states behind the last known token, one per block.
  States after() const;

  // What is known is never written to, so that copies share it.
  std::unique_ptr<LayerState> clone() const override { return snapshot(); }
  std::unique_ptr<LayerState> snapshot() const override { return std::make_unique<KnownOutput>(*this); }
  /// InternalError: it is another stream's to save.
  TensorMap save() const override;
  void load(const TensorMap& tensors, const at::Device& device) override;
  int64_t num_bytes() const override { return storage_bytes(output_BLD_); }
  void detach() override { output_BLD_ = output_BLD_.detach(); }

 private:
  at::Tensor output_BLD_;
  std::shared_ptr<const States> after_;
};

}  // namespace focus::cache
