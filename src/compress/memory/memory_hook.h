// The backbone's seam: hands each attention layer to its memory.
#pragma once

#include <memory>
#include <vector>

#include "focus/compress/memory/memory.h"

namespace focus::compress {

/// For one call of the model. Holds what a block needs that is run again in the backward pass.
class MemoryHook final : public model::AttentionHook {
 public:
  MemoryHook(std::shared_ptr<const Memories> memories, ModelCall call)
      : memories_(std::move(memories)), call_(std::move(call)) {}
  at::Tensor mix(const model::AttentionCall& layer) override {
    const LayerMemory& memory = *memories_->at(layer.block);
    return layer.state != nullptr ? memory.stream(layer, call_) : memory.parallel(layer, call_);
  }
  std::unique_ptr<cache::LayerState> make_state(int64_t block) override {
    return memories_->at(block)->make_state();
  }
  bool repeatable() const override { return true; }
  std::vector<at::Tensor> carried() const override { return call_.side; }
  void carry(std::vector<at::Tensor> tensors) override { call_.side = std::move(tensors); }

 private:
  std::shared_ptr<const Memories> memories_;
  ModelCall call_;
};

}  // namespace focus::compress
