// The paper's unit. Legend: B batch, G key/value heads, D width.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>

#include "focus/compress/focus/low_rank_map.h"
#include "focus/compress/focus/unit.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// The paper's unit (Eq. 2, 3): masked multi-head attention with the Focus token as query over its visible
/// bases and the history. Projections start as the backbone's own: only the differences are trained. beta =
/// log(bases of the k-mer) + a trained offset.
class PaperUnit final : public FocusUnit {
 public:
  PaperUnit(const FocusConfig& layer, const model::BackboneShape& shape);
  Summary summarise(const ClosedSpan& span, const Entries& history) const override;
  bool updates_focus_state() const override { return true; }
  bool reads_history() const override { return true; }
  std::shared_ptr<FocusUnit> with(const FocusConfig& layer) const override;

  std::shared_ptr<LowRankMap> query, key, value, output;
  at::Tensor beta_bias;  // [G]

 private:
  FocusConfig config_;
};

}  // namespace focus::compress
