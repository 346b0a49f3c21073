// What the keys of attention layers are like, from sequences read with full memory: how many directions they
// fill, and how well tables predict their scores from letters. Legend: L length, H query heads, G key/value
// heads, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <vector>

#include "focus/compress/focus/adapter.h"
#include "focus/compress/plan/plan.h"
#include "focus/model/backbone.h"
#include "focus/report/calibration.h"

namespace focus::eval {

class KeyFigures {
 public:
  /// `tables`: an adapter with base tables of all attention blocks; null: none were fitted.
  KeyFigures(const model::Backbone& backbone, const compress::WindowPlan& plan,
             std::shared_ptr<const compress::FocusAdapter> tables);
  ~KeyFigures();
  /// One whole sequence [1, L], through the plain backbone in one call.
  void add(model::Backbone& backbone, const at::Tensor& tokens_BL);
  /// All that add() adds up, this object's own memory: ranks that share the sequences out sum these.
  std::vector<at::Tensor> sums();
  /// Writes ranks, and explained share and residual of the scores q.k/sqrt(E) that queries behind the first
  /// boundary give bases of earlier windows.
  void write(report::BlockCalibration& block) const;

 private:
  struct Layer;
  class Recorder;
  compress::WindowPlan plan_;
  std::shared_ptr<const compress::FocusAdapter> tables_;
  std::map<int64_t, Layer> layers_;
};

}  // namespace focus::eval
