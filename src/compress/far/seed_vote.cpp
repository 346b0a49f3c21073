// Far memory by letters: k-mers where the seeds of the last bases stood before.
#include <algorithm>
#include <functional>
#include <utility>

#include "focus/compress/far/scorer.h"
#include "focus/compress/tables/packed_bases.h"
#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "seed_index.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr int64_t kBlock = 32;  // bases
// What each seed of an unbroken match up to the queries counts more than a vote when k-mers are ranked, and
// how many letters before the last seed are looked at. Settled on natural sequence: such a match is the
// likeliest to go on, long or short.
constexpr int64_t kRunVotes = 4, kLongestRun = 24;

// The plan's k-mers up to some base, for looking up by base without a division.
class KmerSpans {
 public:
  void extend(const WindowPlan& plan, int64_t past_end) {
    for (int64_t count = plan.kmers_completed(past_end); size() < count;) {
      const int64_t window = plan.window_of_kmer(size());
      const Span span = plan.kmer(window, size() - plan.kmers_before(window));
      while (static_cast<int64_t>(first_.size()) * kBlock < span.end)
        first_.push_back(static_cast<int32_t>(size()));
      spans_.push_back({static_cast<int32_t>(span.begin), static_cast<int32_t>(span.end)});
    }
  }
  int64_t size() const { return static_cast<int64_t>(spans_.size()); }
  // f(k-mer) for those with a base in [begin, end) that end at or before `past_end`.
  template <class F>
  void each(int64_t begin, int64_t end, int64_t past_end, const F& f) const {
    begin = std::max<int64_t>(begin, 0);
    if (begin >= end || begin / kBlock >= static_cast<int64_t>(first_.size())) return;
    for (auto j = static_cast<std::size_t>(first_[static_cast<std::size_t>(begin / kBlock)]);
         j < spans_.size() && spans_[j].begin < end && spans_[j].end <= past_end; ++j) {
      if (spans_[j].end > begin) f(j);
    }
  }
  int64_t num_bytes() const { return static_cast<int64_t>(8 * spans_.capacity() + 4 * first_.capacity()); }

 private:
  struct Short {
    int32_t begin, end;
  };
  std::vector<Short> spans_;
  std::vector<int32_t> first_;  // for each block of bases: the first k-mer that ends behind its first base
};

// One sequence: its letters and where the seeds of the last bases occurred.
struct Letters {
  // Of the seed before `end`: the ends of its occurrences, and of those of its reverse complement.
  struct Hits {
    int64_t end = -1;
    std::vector<int32_t> same, reverse;
  };

  explicit Letters(const SeedVoteConfig& config)
      : index(config.seed), hits(static_cast<std::size_t>(config.span)) {}

  void forget_hits() {
    for (Hits& h : hits) h.end = -1;
  }
  const Hits& hits_of(int64_t end, const SeedVoteConfig& config) {
    Hits& out = hits[static_cast<std::size_t>(end) % hits.size()];
    if (out.end == end) return out;
    out.end = end;
    out.same.clear();
    out.reverse.clear();
    if (const auto seed = index.seed(end)) {
      index.find(*seed, config.most_hits, out.same);
      if (config.both_strands) index.find(index.reverse_complement(*seed), config.most_hits, out.reverse);
    }
    return out;
  }
  // How many seeds in a row match, the one before `end` the last of them, where it occurs before `hit`; of
  // its reverse complement, how many go on behind `hit`.
  int64_t run(int64_t end, int64_t hit, bool reverse) const {
    const int64_t begin = end - index.length(), from = reverse ? hit : hit - index.length();
    // Neither before the sequence nor at letters that the queries do not know.
    const int64_t most = std::min({begin, reverse ? begin - from : from, kLongestRun});
    int64_t more = 0;
    for (; more < most; ++more) {
      const int here = index.base(begin - 1 - more),
                there = index.base(reverse ? from + more : from - 1 - more);
      if (here > 3 || here != (reverse ? 3 - there : there)) break;
    }
    return 1 + more;
  }
  int64_t num_bytes() const {
    int64_t bytes = index.num_bytes();
    for (const Hits& h : hits)
      bytes += static_cast<int64_t>(sizeof(Hits) + 4 * (h.same.capacity() + h.reverse.capacity()));
    return bytes;
  }

  SeedIndex index;
  std::vector<Hits> hits;  // of the index as it is; by `end`, modulo
};

class SeedVote final : public FarScorer {
 public:
  SeedVote(const SeedVoteConfig& config, const WindowPlan& plan)
      : config_(config), plan_(plan), shared_(std::make_shared<Shared>()) {}

  void append(const Tensor& codes_BN) override {
    FOCUS_CHECK(codes_BN.dim() == 2 && codes_BN.scalar_type() == at::kByte, "letters are uint8 [B, N]");
    const Tensor codes = ops::to_host(codes_BN).contiguous();
    const int64_t batch = codes.size(0), count = codes.size(1);
    go_back();
    std::vector<Letters>& rows = shared_->rows;
    if (rows.empty()) rows.assign(static_cast<std::size_t>(batch), Letters(config_));
    FOCUS_CHECK(static_cast<int64_t>(rows.size()) == batch, "letters of ", batch, " sequences, not of ",
                rows.size());
    for (int64_t b = 0; b < batch; ++b)
      rows[static_cast<std::size_t>(b)].index.append(codes.const_data_ptr<uint8_t>() + b * count, count);
    size_ += count;
  }

  std::vector<FarChoice> choose(const FarTile& tile, int64_t budget, const Tensor&) override {
    FOCUS_CHECK(
        0 <= tile.past_end && tile.past_end <= tile.begin && tile.begin < size_ && tile.begin < tile.end,
        "queries ", tile.begin, "..", tile.end, " with a past up to ", tile.past_end, " of ", size_,
        " letters");
    go_back();
    shared_->kmers.extend(plan_, tile.past_end);
    std::vector<FarChoice> out;
    for (Letters& row : shared_->rows) out.push_back(choose(row, tile, budget));
    return out;
  }

  std::unique_ptr<FarScorer> clone() const override {
    auto out = std::make_unique<SeedVote>(*this);
    out->shared_ = std::make_shared<Shared>(*shared_);
    return out;
  }
  std::unique_ptr<FarScorer> snapshot() const override { return std::make_unique<SeedVote>(*this); }

  void save(cache::TensorMap& out) const override {
    const auto batch = static_cast<int64_t>(shared_->rows.size());
    if (batch == 0) return;
    PackedBases letters;
    Tensor codes = at::empty({batch, size_}, at::kByte);
    for (int64_t b = 0; b < batch; ++b)
      shared_->rows[static_cast<std::size_t>(b)].index.read(codes.mutable_data_ptr<uint8_t>() + b * size_,
                                                            size_);
    letters.append(codes);
    out["far.scorer.letters"] = letters.saved();
    out["far.scorer.size"] = at::scalar_tensor(size_, at::kLong);
  }
  void load(const cache::TensorMap& saved, const at::Device&) override {
    FOCUS_CHECK(size_ == 0, "a saved state goes onto a fresh one");
    if (!saved.contains("far.scorer.size")) return;
    const int64_t size = cache::loaded_tensor(saved, "far.scorer.size", at::kCPU).item<int64_t>();
    PackedBases letters;
    letters.load(cache::loaded_tensor(saved, "far.scorer.letters", at::kCPU), size);
    append(letters.codes(0, size));
  }

  int64_t num_bytes() const override {
    int64_t bytes = shared_->kmers.num_bytes() +
                    static_cast<int64_t>(4 * (shared_->votes.capacity() + shared_->last.capacity()));
    for (const Letters& row : shared_->rows) bytes += row.num_bytes();
    return bytes;
  }

 private:
  // A state and its snapshots share the letters: whoever goes on drops what another has added.
  void go_back() {
    for (Letters& row : shared_->rows) {
      if (row.index.size() == size_) continue;
      row.index.truncate(size_);
      row.forget_hits();
    }
  }

  FarChoice choose(Letters& row, const FarTile& tile, int64_t budget) {
    if (tile.past_end == 0) return {};
    if (row.index.past_end() != tile.past_end) {
      row.index.index(tile.past_end);
      row.forget_hits();
    }
    std::vector<int32_t>&votes = shared_->votes, &last = shared_->last;
    votes.resize(static_cast<std::size_t>(shared_->kmers.size()));  // all zero between calls
    last.resize(votes.size());
    std::vector<int64_t> voted;
    std::vector<std::pair<int64_t, int64_t>> runs;  // k-mer, and what its unbroken matches add
    const int64_t known = tile.begin + 1, queries = tile.end - tile.begin;
    const int64_t first_seed = std::max(known - config_.span, row.index.length() - 1) + 1;
    for (int64_t end = first_seed; end <= known; ++end) {
      const Letters::Hits& hits = row.hits_of(end, config_);
      const int64_t since = known - end;
      const auto ordinal = static_cast<int32_t>(end - first_seed + 1);
      // A seed has one vote for each k-mer, however often it occurs there.
      const auto each = [&](int64_t begin, int64_t stop, const auto& f) {
        shared_->kmers.each(begin - config_.width, stop + config_.width, tile.past_end, f);
      };
      const auto vote = [&](int64_t begin, int64_t stop) {
        each(begin, stop, [&](std::size_t j) {
          if (last[j] == ordinal) return;
          last[j] = ordinal;
          if (votes[j]++ == 0) voted.push_back(static_cast<int64_t>(j));
        });
      };
      // What followed the seed, `since` bases on: the base that query tile.begin is to predict stands there.
      for (const int32_t hit : hits.same) vote(hit + since, hit + since + queries);
      // On the other strand it stands before the seed and reading goes back.
      for (const int32_t hit : hits.reverse) {
        const int64_t stop = hit - row.index.length() - since;
        vote(stop - queries, stop);
      }
      if (since > 0) continue;
      const auto add = [&runs](int64_t run) {
        return [&runs, run](std::size_t j) { runs.emplace_back(static_cast<int64_t>(j), kRunVotes * run); };
      };
      for (const int32_t hit : hits.same) each(hit, hit + queries, add(row.run(end, hit, false)));
      for (const int32_t hit : hits.reverse) {
        const int64_t stop = hit - row.index.length();
        each(stop - queries, stop, add(row.run(end, hit, true)));
      }
    }
    std::sort(runs.begin(), runs.end());
    // Most votes first; the newer of two with as many.
    std::vector<std::pair<int64_t, int64_t>> ranked;
    for (const int64_t j : voted) {
      const auto at = static_cast<std::size_t>(j);
      last[at] = 0;
      if (votes[at] < config_.min_votes) continue;
      int64_t rank = votes[at];
      for (auto run = std::ranges::lower_bound(runs, std::pair(j, int64_t{0}));
           run != runs.end() && run->first == j; ++run)
        rank += run->second;
      ranked.emplace_back(rank, j);
    }
    const auto taken = std::min(static_cast<int64_t>(ranked.size()), budget);
    std::partial_sort(ranked.begin(), ranked.begin() + taken, ranked.end(), std::greater<>());
    ranked.resize(static_cast<std::size_t>(taken));
    FarChoice out;
    for (const auto& [rank, j] : ranked) {
      out.kmers.push_back(j);
      out.best_votes = std::max(out.best_votes, votes[static_cast<std::size_t>(j)]);
    }
    for (const int64_t j : voted) votes[static_cast<std::size_t>(j)] = 0;
    std::sort(out.kmers.begin(), out.kmers.end());
    return out;
  }

  struct Shared {
    std::vector<Letters> rows;
    KmerSpans kmers;
    std::vector<int32_t> votes,
        last;  // [k-mers] while a choice is made: votes, and the last seed to give one
  };
  SeedVoteConfig config_;
  WindowPlan plan_;
  int64_t size_ = 0;
  std::shared_ptr<Shared> shared_;
};

}  // namespace

void SeedVoteConfig::visit(config::Fields& f) {
  f.integer("seed", seed, {0, SeedIndex::kLongest},
            "bases of a seed; 0 = ceil(log4(bases of the past)) + 3, so that few match by chance");
  f.integer("span", span, {1, 1 << 16}, "last bases whose seeds vote");
  f.integer("min_votes", min_votes, {1, 1 << 16}, "votes that a k-mer needs");
  f.integer(
      "width", width, {0, 1 << 16},
      "bases by which a match may have shifted, by insertions and deletions, when a k-mer is asked for");
  f.integer("most_hits", most_hits, {1, 1 << 20}, "occurrences of a seed that count, the newest");
  f.boolean("both_strands", both_strands, "a match with the reverse complement votes too");
}

std::unique_ptr<FarScorer> make_seed_vote(const SeedVoteConfig& config, const WindowPlan& plan) {
  return std::make_unique<SeedVote>(config, plan);
}

}  // namespace focus::compress
