// The fitted unit: entries in closed form, with trained corrections. Legend: B batch, G key/value heads, m
// k-mers, D width.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <memory>

#include "focus/compress/focus/low_rank_map.h"
#include "focus/compress/focus/unit.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// Closed form (spec: the fitted unit). Reference queries are the span's own, rotated one span ahead; a
/// key/value head that several query heads read has the queries of them all. Per key/value head and k-mer j,
///   q.K_j/sqrt(E) + beta_j  ~  log sum_{t in j} exp(q.k_t/sqrt(E))   by ridge regression around the mean
///   key, V_j = sum_t a_t v_t / sum_t a_t,  a_t = the attention that the references pay to base t;
/// in fp32. With several entries per k-mer all but one are the bases of greatest a_t themselves (beta 0), and
/// j stands for the others. Corrections: key (before rotation), value and beta move by trained maps of the
/// k-mer's mean hidden state (inline: of its Focus token's), which start at zero, so that training starts at
/// the fit.
class FittedUnit final : public FocusUnit {
 public:
  FittedUnit(const FocusConfig& layer, const model::BackboneShape& shape);
  Summary summarise(const ClosedSpan& span, const Entries& history) const override;
  bool updates_focus_state() const override { return false; }
  bool reads_history() const override { return false; }
  std::shared_ptr<FocusUnit> with(const FocusConfig& layer) const override;

  std::shared_ptr<LowRankMap> key, value;  // corrections
  at::Tensor beta_weight, beta_bias;       // [G, D], [G]

 private:
  FocusConfig config_;
};

}  // namespace focus::compress
