// Base tables filled in closed form. Legend: B batch, L length, F features.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "focus/compress/tables/base_tables.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// Root mean square, in nats and over heads, of what fitted tables leave out of a past base's score: from
/// their betas, half of its square each.
double score_residual(const BaseTables& tables);
/// Above it base memory is not trusted: of three models, one whose layers have 1.2 to 1.5 nats keeps R .85,
/// one with 2.1 to 3.8 still .82, one with 4.4 and 5.2 only .19. On the safe side, since three are few.
inline constexpr double kLargestResidual = 2.0;

/// Samples of the training data that the regression sees begin here: none of them is the training's.
inline constexpr uint64_t kFitSamples = uint64_t{1} << 40;

/// Ridge regression of the tables of all layers on the keys and values that a backbone computes with full
/// memory.
class TablesFit {
 public:
  /// `tables` by block.
  TablesFit(model::Backbone& backbone, std::map<int64_t, BaseTables*> tables, const TablesConfig& config);
  ~TablesFit();
  /// One batch of whole sequences [B, L].
  void add(const at::Tensor& tokens_BL);
  /// All that add() adds up, fp64 on the CPU, this object's own memory: processes that share the batches out
  /// sum these, then solve.
  std::vector<at::Tensor> sums();
  /// Writes the tables. Returns, by block, the shares of key score variance and of value variance that stay
  /// unexplained on the data added.
  std::map<int64_t, std::pair<double, double>> solve();

 private:
  struct Layer;
  class Recorder;
  model::Backbone& backbone_;
  TablesConfig config_;
  std::map<int64_t, Layer> layers_;
  at::Tensor gram_, feature_sum_;  // fp64 [F, F], [F]
  double count_ = 0;
};

}  // namespace focus::compress
