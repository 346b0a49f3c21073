// Entries of one given sequence that are parameters themselves, in place of a unit that makes them from what
// it reads. Legend: B batch, G key/value heads, S entries, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>

#include "focus/compress/focus/adapter.h"

namespace focus::compress {

/// Entries of one layer in the order they were made, and where those of each span are among them, by the
/// span's first k-mer.
struct SequenceEntries {
  Entries all;
  std::map<int64_t, Span> of_span;
};

/// Gives each span of the one sequence its stored entries, whatever the span holds. Differentiable in the
/// entries alone.
class StoredUnit final : public FocusUnit {
 public:
  explicit StoredUnit(SequenceEntries entries);
  /// InternalError: a span that the sequence did not have.
  Summary summarise(const ClosedSpan& span, const Entries& history) const override;
  bool updates_focus_state() const override { return false; }
  bool reads_history() const override { return false; }

  // [B, G, S, E], rotated to their positions; [B, G, S, E]; [B, G, S]. fp32 for models in less; undefined
  // where there are none.
  at::Tensor key, value, beta;

 private:
  SequenceEntries entries_;
};

/// `source` with each compressed block's unit replaced by a StoredUnit of what it makes of these tokens [B,
/// L] in the parallel execution. `source` has no Focus states. Storage in another precision rounds the stored
/// entries as it would those of `source`.
std::shared_ptr<FocusAdapter> store_entries(const std::shared_ptr<model::Backbone>& backbone,
                                            const FocusAdapter& source, const at::Tensor& tokens_BL);

}  // namespace focus::compress
