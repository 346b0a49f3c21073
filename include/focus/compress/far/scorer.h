// Far memory: which k-mers of closed windows a stretch of queries fetches. A scorer is given the sequence as
// it comes and answers with one list per stretch. Legend: B batch, H query heads, G key/value heads, N
// letters, n bases, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/compress/memory/entries.h"
#include "focus/compress/plan/plan.h"
#include "focus/config/fields.h"

namespace focus::compress {

/// Consecutive queries that fetch the same k-mers.
struct FarTile {
  int64_t begin = 0, end = 0;  // the queries, as bases of the sequence
  int64_t past_end = 0;        // k-mers that end at or before this base may be fetched
};

struct FarChoice {
  std::vector<int64_t> kmers;  // over the whole sequence, ascending; at most the budget, often none
  int32_t best_votes = 0;      // of the chosen k-mer with most; 0 where a scorer does not vote
  bool operator==(const FarChoice&) const = default;
};

/// seeds: letters vote. random: any k-mers. The others take those with most attention of the queries given,
/// all heads together, as told by what they hold of each base's key: oracle: the key; bits1, bits2: a code of
/// as many bits per channel; sketch: int4 coordinates in the directions that matter most to the scores of the
/// first window's queries and keys;
/// fitted: the k-mers' entries alone.
enum class FarScore { seeds, random, oracle, fitted, bits1, bits2, sketch };
/// Whether keys and queries choose, in each layer for itself.
constexpr bool reads_keys(FarScore score) { return score != FarScore::seeds && score != FarScore::random; }

/// How the letters choose.
struct SeedVoteConfig {
  int64_t seed = 0;  // bases of a seed; 0 = ceil(log4(past_end)) + 3
  int64_t span = 48;
  int64_t min_votes = 1;
  int64_t width = 0;
  int64_t most_hits = 64;
  bool both_strands = true;
  void visit(config::Fields& f);
  bool operator==(const SeedVoteConfig&) const = default;
};

/// One per stream where letters decide (all layers fetch the same), else one per layer and stream.
class FarScorer {
 public:
  virtual ~FarScorer() = default;
  /// Letters as they come: uint8 [B, N] of 0-3, anything else being no base.
  virtual void append(const at::Tensor& /*codes_BN*/) {}
  /// The next k-mers of the past, from the first on: rotated keys [B, G, n, E] of their bases, k-mer after
  /// k-mer, and the entries that stand for them, one each. Each scorer reads what it needs.
  virtual void close(const at::Tensor& /*k_BGnE*/, const Entries& /*summaries*/) {}
  /// Rotated queries of each tile in turn, from the first of the sequence on, before choose() is asked for
  /// them; `kv_heads` G: what is kept of keys may be fitted to what is asked of them.
  virtual void see(const at::Tensor& /*q_BHnE*/, int64_t /*kv_heads*/) {}
  /// Number of k-mers that close() was given.
  virtual int64_t closed() const { return 0; }
  /// One choice for each sequence of the batch. Depends on `tile`, on letters up to and including
  /// `tile.begin`, and on keys and queries where they choose: so it is the same whether a sequence comes at
  /// once or base by base, and may be asked for again. Tiles in ascending order are fast, any order is right.
  /// `q_BHnE`: rotated queries whose heads and positions are summed over; read by key scorers only.
  virtual std::vector<FarChoice> choose(const FarTile& tile, int64_t budget,
                                        const at::Tensor& q_BHnE = {}) = 0;
  virtual std::unique_ptr<FarScorer> clone() const = 0;
  /// As cache::LayerState::snapshot().
  virtual std::unique_ptr<FarScorer> snapshot() const = 0;
  /// Under names that begin with "far.scorer.".
  virtual void save(cache::TensorMap& out) const = 0;
  virtual void load(const cache::TensorMap& saved, const at::Device& device) = 0;
  /// Bytes of what is held.
  virtual int64_t num_bytes() const = 0;
};

/// `rank`: directions of a sketch. A scorer that reads keys belongs to one layer of a stream: close() and the
/// queries are for it.
std::unique_ptr<FarScorer> make_far_scorer(FarScore score, const WindowPlan& plan,
                                           const SeedVoteConfig& seeds = {}, int64_t rank = 16);
/// What a scorer that reads keys holds after `kmers` k-mers of `bases` bases in all, of one sequence; 0 for
/// others.
int64_t key_scorer_bytes(FarScore score, int64_t rank, int64_t bases, int64_t kmers, int64_t kv_heads,
                         int64_t head_dim, at::ScalarType model_dtype);
std::unique_ptr<FarScorer> make_seed_vote(const SeedVoteConfig& config, const WindowPlan& plan);

}  // namespace focus::compress
