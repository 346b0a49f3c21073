// What the letters of a stream choose to fetch: the same for all layers, and known before any of them runs.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/compress/far/config.h"
#include "focus/compress/far/recently_used.h"
#include "focus/compress/far/scorer.h"
#include "focus/compress/plan/plan.h"

namespace focus::compress {

/// Consecutive queries that fetch the same k-mers.
struct FarStretch {
  int64_t begin = 0, end = 0;      // bases of the sequence
  int64_t first_kept = 0;          // k-mers before it are given up
  HeldKmers held = {};             // and those that are not held; null: all are
  std::vector<FarChoice> choices;  // for each sequence of the batch
  bool operator==(const FarStretch&) const = default;
};

/// The stretches of one call, in order and without gaps.
using FarPlan = std::vector<FarStretch>;

/// The choices of one stream, from its first base on. They depend on no letter behind the one that is read
/// when a tile begins, so how a sequence is cut into calls makes no difference.
class FarChooser {
 public:
  FarChooser(const FarConfig& config, const WindowPlan& plan);
  /// Goes on by these letters, uint8 [B, N], and says what they fetch. Neighbouring tiles that fetch the same
  /// come as one stretch. Where keys choose, the stretches are the tiles, and their choices empty.
  FarPlan advance(const at::Tensor& codes_BN);

  std::unique_ptr<FarChooser> clone() const;
  /// As cache::LayerState::snapshot().
  std::unique_ptr<FarChooser> snapshot() const;
  /// Under names that begin with "far.".
  void save(cache::TensorMap& out) const {
    if (!scorer_) return;
    scorer_->save(out);
    used_.save(out);
  }
  void load(const cache::TensorMap& saved, int64_t bases);
  int64_t num_bytes() const { return scorer_ ? scorer_->num_bytes() + used_.num_bytes() : 0; }
  /// The most that num_bytes() may be after `bases` of one sequence.
  static int64_t planned_bytes(const FarConfig& config, const WindowPlan& plan, int64_t bases);

 private:
  FarChooser(const FarChooser& other, std::unique_ptr<FarScorer> scorer);
  FarConfig config_;
  WindowPlan plan_;
  std::unique_ptr<FarScorer> scorer_;  // null: each layer chooses for itself
  RecentlyUsed used_;
  int64_t bases_ = 0;
  FarStretch last_;  // the newest tile, which the next call may go on with
};

}  // namespace focus::compress
