// One layer's part in far memory during one call: what leaves goes to the store, and what the letters chose
// stands among the entries that queries see.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "far_store.h"
#include "focus/compress/far/chooser.h"
#include "focus/compress/far/recently_used.h"
#include "focus/compress/plan/layer_rules.h"
#include "focus/nn/attention.h"
#include "focus/ops/attention.h"

namespace focus::compress {

/// How the layer's own memory stands to its past at some base.
struct FarView {
  int64_t raw_begin = 0;                         // bases from here on are seen raw
  int64_t first_kmer = 0;                        // k-mers before it are kept raw for ever
  Span summaries;                                // of the entries that are shown: those that are no raw bases
  std::function<Span(int64_t kmer)> entries_of;  // of those shown, the ones that stand for a k-mer
};
/// Of a Focus layer that shows `num_entries` from visible(base).entry_begin on.
FarView far_view(const LayerRules& rules, int64_t base, int64_t num_entries);

/// What the keys and queries of one layer choose, where letters do not.
struct FarKeys {
  FarKeys(const FarConfig& config, const WindowPlan& windows);
  FarKeys(std::unique_ptr<FarScorer> copied, const FarKeys& other)
      : scorer(std::move(copied)), used(other.used), tile(other.tile), choices(other.choices) {}
  FarKeys clone() const { return {scorer ? scorer->clone() : nullptr, *this}; }
  FarKeys snapshot() const { return {scorer ? scorer->snapshot() : nullptr, *this}; }
  /// Under names that begin with "far.".
  void save(cache::TensorMap& out) const;
  void load(const cache::TensorMap& saved, const at::Device& device);
  int64_t num_bytes() const { return scorer ? scorer->num_bytes() + used.num_bytes() : 0; }

  std::unique_ptr<FarScorer> scorer;  // null: letters choose
  RecentlyUsed used;                  // where that decides what is given up
  int64_t tile = -1;                  // the first query of those that fetch `choices`
  std::vector<FarChoice> choices;
};

class FarLayer {
 public:
  /// All outlive it. `store` null: a whole sequence, which is given to show().
  FarLayer(const FarConfig& config, const WindowPlan& windows, const FarPlan& plan, FarKeys& keys,
           FarStore* store)
      : config_(config), windows_(windows), plan_(plan), keys_(keys), store_(store) {}

  /// The first base after `base` that fetches something else.
  int64_t stretch_end(int64_t base) const { return at(base).end; }
  /// Raw bases [B, G, n, E] that leave the layer, from `first_base` on: whole k-mers, in order.
  void take(int64_t first_base, const at::Tensor& k_BGnE, const at::Tensor& v_BGnE);
  /// Keys and values of a whole sequence, from base 0 on.
  void show(const at::Tensor& k_BGLE, const at::Tensor& v_BGLE);
  /// Attention of the queries from `base` on, the last of the open bases in `now`, over these and over what
  /// they see of the past: `past` without what stands for the fetched k-mers, and these k-mers' bases.
  at::Tensor attend(int64_t base, const FarView& view, const ops::Memory& past, const nn::Projection& now,
                    bool recompute = false);

 private:
  /// What one sequence fetches, and whether it sees summaries beside that.
  struct Wanted {
    std::vector<int64_t> kmers;
    bool summaries = true;
    bool operator==(const Wanted&) const = default;
  };
  const FarStretch& at(int64_t base) const;
  std::vector<Wanted> wanted(int64_t base, const FarView& view, const ops::Memory& past,
                             const nn::Projection& now);
  /// attend() where all queries fetch the same.
  at::Tensor attend_stretch(int64_t base, const FarView& view, const ops::Memory& past,
                            const nn::Projection& now, bool recompute);
  ops::Memory seen(const Wanted& wanted, const FarView& view, const ops::Memory& past,
                   const at::Tensor& like);
  ops::MemoryPart fetch(int64_t kmer, const at::Tensor& like);
  /// What the keys choose for the tile of query `base`; asked at its first query, the first of `now`.
  const std::vector<FarChoice>& chosen_by_keys(int64_t base, const FarView& view, const ops::Memory& past,
                                               const nn::Projection& now);

  const FarConfig& config_;
  const WindowPlan& windows_;
  const FarPlan& plan_;
  FarKeys& keys_;
  FarStore* store_;
  std::vector<at::Tensor> k_, v_;  // of a whole sequence, by k-mer
  std::unordered_map<int64_t, ops::MemoryPart> rounded_;
};

}  // namespace focus::compress
