// Far memory on top of a layer's memory: whatever leaves the layer raw is stored exactly, and fetched where
// the letters find it again.
#pragma once

#include <memory>
#include <string>

#include "far_layer.h"
#include "far_store.h"
#include "focus/compress/memory/memory.h"
#include "focus/model/backbone.h"

namespace focus::compress {

class FarState final : public MemoryState {
 public:
  FarState(std::unique_ptr<MemoryState> near, FarStore far, FarKeys chosen)
      : near_(std::move(near)), store(std::move(far)), keys(std::move(chosen)) {}
  std::unique_ptr<cache::LayerState> clone() const override;
  std::unique_ptr<cache::LayerState> snapshot() const override;
  cache::TensorMap save() const override;
  void load(const cache::TensorMap& saved, const at::Device& device) override;
  MemoryUse use() const override;
  void detach() override;

  MemoryState& near() { return *near_; }

 private:
  std::unique_ptr<MemoryState> near_;

 public:
  FarStore store;
  FarKeys keys;
};

class FarMemory final : public LayerMemory {
 public:
  /// ConfigError: `near` does not say what leaves it.
  FarMemory(std::shared_ptr<const LayerMemory> near, const FarConfig& config, const WindowPlan& plan,
            const model::Backbone& backbone);
  std::string describe() const override;
  std::unique_ptr<MemoryState> make_state() const override {
    return std::make_unique<FarState>(near_->make_state(), FarStore(config_), FarKeys(config_, plan_));
  }
  at::Tensor stream(const model::AttentionCall& layer, ModelCall& call) const override;
  at::Tensor parallel(const model::AttentionCall& layer, ModelCall& call) const override;
  /// What may be held ready counts as if it were.
  MemoryUse planned(int64_t num_bases) const override;
  bool fetches() const override { return true; }

 private:
  std::shared_ptr<const LayerMemory> near_;
  FarConfig config_;
  WindowPlan plan_;
  model::BackboneShape shape_;
  at::ScalarType dtype_;
};

}  // namespace focus::compress
