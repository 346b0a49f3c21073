// Which k-mers a bounded store still has, where those used longest ago are given up.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/compress/far/scorer.h"
#include "focus/compress/plan/plan.h"

namespace focus::compress {

/// By k-mer, whether it is still there; those beyond the last are.
using HeldKmers = std::shared_ptr<const std::vector<bool>>;

/// A k-mer is used when it closes and when it is fetched. Each sequence of a batch has its own.
class RecentlyUsed {
 public:
  /// `keep`: bases held at most, of each sequence.
  RecentlyUsed(const WindowPlan& plan, int64_t keep) : plan_(plan), keep_(keep) {}
  /// Up to here k-mers have closed.
  int64_t closed() const { return used_.empty() ? 0 : static_cast<int64_t>(used_[0].size()); }
  /// The k-mers up to number `kmers` have closed when query `now` is read. Beyond `keep` bases those go that
  /// were used longest ago, of several used at the same time the oldest.
  void close(int64_t batch, int64_t kmers, int64_t now);
  /// Leaves of a sequence's choice what is held. Query `now` uses that; may be asked again.
  void fetch(std::size_t sequence, FarChoice& choice, int64_t now);
  /// Held by any sequence. The same value until something closes.
  const HeldKmers& held() const { return held_; }

  /// As "far.used".
  void save(cache::TensorMap& out) const;
  void load(const cache::TensorMap& saved);
  int64_t num_bytes() const { return static_cast<int64_t>(used_.size()) * planned_bytes(closed()); }
  /// Of one sequence.
  static int64_t planned_bytes(int64_t kmers) { return 8 * kmers; }

 private:
  int64_t bases_of(int64_t kmer) const;
  void note_held();
  WindowPlan plan_;
  int64_t keep_;
  std::vector<std::vector<int64_t>>
      used_;  // by sequence and k-mer: the query that used it last; -1: given up
  HeldKmers held_;
};

}  // namespace focus::compress
