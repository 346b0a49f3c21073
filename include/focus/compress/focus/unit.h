// Focus units: how the entries of a span's k-mers are made. Legend: B batch, m k-mers, D width.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"
#include "focus/compress/plan/config.h"

namespace focus::compress {

struct Summary {
  Entries entries;     // of each k-mer of the span, in order
  at::Tensor focus_x;  // [B, m, D] Focus states after this layer; undefined for units that have none
};

/// The unit of one layer, built with that layer's settings.
class FocusUnit : public torch::nn::Module {
 public:
  /// `history`: the entries that Focus queries of this span may see. Differentiable in the unit's parameters
  /// and, through the span, in the backbone's states. Nothing outside the span and the history is read.
  virtual Summary summarise(const ClosedSpan& span, const Entries& history) const = 0;
  /// Whether Focus tokens have a residual state of their own that this unit reads and updates.
  virtual bool updates_focus_state() const = 0;
  /// Whether summarise() looks at the history: otherwise it may be left empty.
  virtual bool reads_history() const = 0;
  /// A unit with the same parameters, not copies of them, under other settings of its layer. InternalError
  /// where that makes no sense.
  virtual std::shared_ptr<FocusUnit> with(const FocusConfig& layer) const;
};

}  // namespace focus::compress
