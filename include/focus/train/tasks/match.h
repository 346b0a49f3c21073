// Attention matching: trains the Focus units layer by layer against what full attention does, without a
// backward pass through the backbone. Legend: B batch, L length.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "focus/compress/focus/adapter.h"
#include "focus/config/fields.h"

namespace focus::train {

/// One pass of the full model without gradient shows each compressed attention layer its true input. There,
/// the entries of closed windows are compared with the bases they stand for, on queries of later windows. For
/// a query, with Z the sum of exp(score) over what it sees (its window's own bases, and the past in full or
/// as entries), c the attention's context and x the residual stream after the layer:
///   mass   * mean over heads of (log Z_entries - log Z_full)^2
/// + output * |out_proj(c_entries - c_full)|^2 / |x|^2.
/// The second is what later layers see of the error, whose norms divide by |x|. The loss is the mean over
/// queries, weighted as their targets are, and layers.
struct MatchConfig {
  int64_t queries = 128;  // of each window, evenly spaced, another offset each step; 0 = all
  double mass = 0.01;
  double output = 1.0;
  void visit(config::Fields& f);
};

/// Sums over the queries, each weighted by the loss weight of the base it predicts.
struct MatchSum {
  at::Tensor loss;          // scalar; gradient reaches the adapter's parameters only
  at::Tensor mass, output;  // its two terms before their weights: fp64 scalars without gradient
};

/// The divisor of match_sum()'s figures, an fp64 scalar. `weights_BL`: loss weight of the prediction of each
/// base. `draw` picks the queries' offset.
at::Tensor match_weight(const MatchConfig& config, const compress::WindowPlan& plan,
                        const at::Tensor& weights_BL, int64_t draw);

/// The memory must have a side stream, focus.local 'window' and focus.history 'all' (refuse_match says why).
/// Layers that `adapter` leaves alone are not compared.
MatchSum match_sum(const MatchConfig& config, model::Backbone& backbone,
                   const compress::FocusAdapter& adapter, const at::Tensor& tokens_BL,
                   const at::Tensor& weights_BL, int64_t draw);

/// ConfigError with the reason where entries cannot be matched so.
void refuse_match(const compress::MemoryConfig& memory);

}  // namespace focus::train
