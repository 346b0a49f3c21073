// What a layer that retains entries holds of one stream.
#pragma once

#include <memory>
#include <vector>

#include "focus/compress/memory/memory.h"
#include "focus/compress/memory/storage.h"
#include "open_bases.h"

namespace focus::compress {

class EntriesState final : public MemoryState {
 public:
  /// `room`: bases that an open window makes room for.
  EntriesState(const StorageFormat& format, int64_t room, const StorageFormat& recent_format = {})
      : retained(format), recent(recent_format, "recent"), open(room) {}
  std::unique_ptr<cache::LayerState> clone() const override;
  std::unique_ptr<cache::LayerState> snapshot() const override {
    return std::make_unique<EntriesState>(*this);
  }
  cache::TensorMap save() const override;
  void load(const cache::TensorMap& saved, const at::Device& device) override;
  MemoryUse use() const override;
  void detach() override;
  int64_t room() const override { return open.room(); }
  void advance() override { open.advance(); }

  EntryStore retained;
  int64_t hidden = 0;  // Focus: the last of these, whose k-mers are still raw in the tail, or held as codes
  EntryStore recent;   // Focus: the newest bases of closed windows
  OpenBases open;
  std::vector<at::Tensor>
      focus_x;  // Focus, inline, fitted: states of the open window's Focus tokens, [B, 1, D] each
};

}  // namespace focus::compress
