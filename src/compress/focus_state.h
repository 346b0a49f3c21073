// What a Focus layer holds of one stream, and its two executions.
#pragma once

#include <memory>
#include <vector>

#include "focus/compress/focus_layer.h"
#include "focus/compress/memory.h"
#include "open_bases.h"

namespace focus::compress {

/// A layer's memory of one stream.
class FocusState final : public MemoryState {
 public:
  explicit FocusState(const StorageFormat& format) : retained(format) {}
  std::unique_ptr<cache::LayerState> clone() const override;
  std::unique_ptr<cache::LayerState> snapshot() const override { return std::make_unique<FocusState>(*this); }
  cache::TensorMap save() const override;
  void load(const cache::TensorMap& saved, const at::Device& device) override;
  MemoryUse use() const override;
  void detach() override;

  EntryStore retained;
  int64_t hidden = 0;               // the last of these, whose k-mers are still raw in the tail
  OpenBases open;
  std::vector<at::Tensor> focus_x;  // inline, fitted: states of the open window's Focus tokens, [B, 1, D] each
};

/// Continues a stream and really drops.
at::Tensor stream_focus(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call);

/// A whole sequence: all its entries are made first, then every stretch of bases that sees the same entries attends to them and, causally,
/// to the raw bases that a stream would still hold. No L x L array exists.
at::Tensor whole_focus(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call);

}  // namespace focus::compress
