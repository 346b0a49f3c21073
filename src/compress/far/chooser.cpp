#include "focus/compress/far/chooser.h"

#include <algorithm>
#include <utility>

#include "focus/core/error.h"

namespace focus::compress {

using at::Tensor;

void FarConfig::visit(config::Fields& f) {
  constexpr int64_t kMost = int64_t{1} << 32;
  const auto on = f.when(active(), "kmers", "is positive");
  const auto by_letters = f.when(score == FarScore::seeds, "score", "is 'seeds'");
  const auto ready = f.when(place != FarPlace::model || store == FarStoreType::bf16, "place",
                            "is not 'model', or store is 'bf16'");
  f.integer("kmers", kmers, {0, 1 << 16},
            "far memory: exact keys and values of closed windows are stored, and this many k-mers of them at "
            "most fetched by each query; 0 = none");
  f.only(on).integer("refresh", refresh, {1, kMost},
                     "consecutive queries that fetch the same k-mers, chosen by the letters up to the first "
                     "of them");
  f.only(on && by_letters)
      .integer("gate", gate, {0, 1 << 16},
               "votes for a fetched k-mer from which on its queries see no summaries; 0 = they always do");
  f.only(on).integer("keep", keep, {0, kMost},
                     "bases before the open window that can be fetched; what is more is given up; 0 = all");
  f.only(on && f.when(keep > 0, "keep", "is positive"))
      .choice("evict", evict, {{"age", FarEvict::age}, {"use", FarEvict::use}},
              "which k-mers are given up: the oldest, or those fetched or closed longest ago");
  f.only(on).choice(
      "store", store,
      {{"model", FarStoreType::model},
       {"bf16", FarStoreType::bf16},
       {"int8", FarStoreType::int8},
       {"int4", FarStoreType::int4}},
      "precision of the stored keys and values; int8 and int4: keys with scales per channel and "
      "k-mer, values per base, and no gradient");
  f.only(on).choice("place", place,
                    {{"model", FarPlace::model}, {"host", FarPlace::host}, {"file", FarPlace::file}},
                    "where they are stored: beside the model, in host memory, or in a file without a name, "
                    "which ends with the process");
  f.only(on && f.when(place == FarPlace::file, "place", "is 'file'"))
      .text("folder", folder, "folder of the file; empty = the system's for temporary files");
  f.only(on && ready)
      .integer(
          "hot", hot, {0, 1 << 20},
          "k-mers per layer held ready beside the model, those fetched last, in the model's precision or "
          "in the store's codes");
  f.only(on).choice(
      "score", score,
      {{"seeds", FarScore::seeds},
       {"random", FarScore::random},
       {"oracle", FarScore::oracle},
       {"fitted", FarScore::fitted},
       {"bits1", FarScore::bits1},
       {"bits2", FarScore::bits2},
       {"sketch", FarScore::sketch}},
      "who chooses: letters, for all layers; chance; or, in each layer, the attention of the "
      "first of the queries, by exact keys, the k-mers' entries, keys of 1 or 2 bits per channel, "
      "or a low-rank sketch of 4 bits");
  f.only(on && by_letters).group("seeds", seeds, "how letters choose");
  f.only(on && f.when(score == FarScore::sketch, "score", "is 'sketch'"))
      .integer("rank", rank, {1, 1 << 16},
               "directions of a sketch, those that matter most to the first window's scores");
}

FarTile FarConfig::tile(const WindowPlan& plan, int64_t base) const {
  const Span window = plan.window(plan.window_of(base));
  const int64_t begin = window.begin + (base - window.begin) / refresh * refresh;
  return {begin, std::min(begin + refresh, window.end), window.begin};
}

int64_t FarConfig::first_kept(const WindowPlan& plan, int64_t past_end) const {
  if (keep == 0 || past_end <= keep || evicts_by_use()) return 0;
  const int64_t oldest = past_end - keep, window = plan.window_of(oldest), j = plan.kmer_of(oldest);
  if (j < 0) return plan.kmers_before(window + 1);
  return plan.kmers_before(window) + j + (plan.kmer(window, j).begin < oldest ? 1 : 0);
}

FarChooser::FarChooser(const FarConfig& config, const WindowPlan& plan)
    : config_(config),
      plan_(plan),
      scorer_(reads_keys(config.score) ? nullptr : make_far_scorer(config.score, plan, config.seeds)),
      used_(plan, config.keep) {}

FarChooser::FarChooser(const FarChooser& other, std::unique_ptr<FarScorer> scorer)
    : config_(other.config_),
      plan_(other.plan_),
      scorer_(std::move(scorer)),
      used_(other.used_),
      bases_(other.bases_),
      last_(other.last_) {}

std::unique_ptr<FarChooser> FarChooser::clone() const {
  return std::unique_ptr<FarChooser>(new FarChooser(*this, scorer_ ? scorer_->clone() : nullptr));
}

std::unique_ptr<FarChooser> FarChooser::snapshot() const {
  return std::unique_ptr<FarChooser>(new FarChooser(*this, scorer_ ? scorer_->snapshot() : nullptr));
}

void FarChooser::load(const cache::TensorMap& saved, int64_t bases) {
  if (scorer_) {
    scorer_->load(saved, at::kCPU);
    used_.load(saved);
  }
  bases_ = bases;
}

int64_t FarChooser::planned_bytes(const FarConfig& config, const WindowPlan& plan, int64_t bases) {
  if (reads_keys(config.score)) return 0;
  const int64_t index = 6 * bases + (int64_t{64} << 10);
  return index + (config.evicts_by_use() ? RecentlyUsed::planned_bytes(plan.kmers_completed(bases)) : 0);
}

FarPlan FarChooser::advance(const Tensor& codes_BN) {
  if (scorer_) scorer_->append(codes_BN);
  const int64_t end = bases_ + codes_BN.size(1);
  FarPlan out;
  while (bases_ < end) {
    if (bases_ >= last_.end) {
      const FarTile tile = config_.tile(plan_, bases_);
      const bool by_use = scorer_ && config_.evicts_by_use();
      if (by_use) used_.close(codes_BN.size(0), plan_.kmers_completed(tile.past_end), tile.begin);
      last_ = {tile.begin, tile.end, config_.first_kept(plan_, tile.past_end), used_.held(), {}};
      last_.choices = scorer_ && tile.past_end > 0
                          ? scorer_->choose(tile, config_.kmers)
                          : std::vector<FarChoice>(static_cast<std::size_t>(codes_BN.size(0)));
      for (FarChoice& choice : last_.choices)
        std::erase_if(choice.kmers, [&](int64_t kmer) { return kmer < last_.first_kept; });
      for (std::size_t b = 0; by_use && b < last_.choices.size(); ++b)
        used_.fetch(b, last_.choices[b], tile.begin);
    }
    FarStretch next = last_;
    next.begin = bases_;
    next.end = bases_ = std::min(last_.end, end);
    const auto same = [&](const FarChoice& a, const FarChoice& b) {
      return a.kmers == b.kmers && (a.best_votes >= config_.gate) == (b.best_votes >= config_.gate);
    };
    if (scorer_ && !out.empty() && out.back().first_kept == next.first_kept && out.back().held == next.held &&
        std::ranges::equal(out.back().choices, next.choices, same)) {
      out.back().end = next.end;
    } else {
      out.push_back(std::move(next));
    }
  }
  return out;
}

}  // namespace focus::compress
