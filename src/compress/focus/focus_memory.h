// Focus: closed windows become entries, made by a unit.
#pragma once

#include "entries_state.h"
#include "focus_stream.h"
#include "focus_whole.h"

namespace focus::compress {

class FocusMemory final : public LayerMemory {
 public:
  FocusMemory(FocusLayer focus, const model::Backbone& backbone);
  std::string describe() const override;
  std::unique_ptr<MemoryState> make_state() const override {
    return std::make_unique<EntriesState>(focus_.format,
                                          (focus_.rules.rolling() ? 2 : 1) * open_room(focus_.rules.plan()),
                                          focus_.recent_format());
  }
  at::Tensor stream(const model::AttentionCall& layer, ModelCall& call) const override {
    return stream_focus(focus_, layer, call);
  }
  at::Tensor parallel(const model::AttentionCall& layer, ModelCall& call) const override {
    return whole_focus(focus_, layer, call);
  }
  MemoryUse planned(int64_t num_bases) const override;
  std::optional<int64_t> first_raw(int64_t num_bases) const override {
    return num_bases - focus_.rules.held(num_bases).open_bases;
  }
  int64_t first_seen_raw(int64_t base) const override { return focus_.rules.visible(base).raw_begin; }
  int64_t steady_bases(int64_t base) const override;

 private:
  int64_t recent_bytes(int64_t num_bases) const;

  FocusLayer focus_;
  int64_t entry_bytes_, open_bytes_,
      unread_bytes_;                  // of an entry, a raw base, and a base that is not summarised yet
  int64_t code_bytes_, scale_bytes_;  // of a base held as codes, and of the scales of a group of their keys
};

}  // namespace focus::compress
