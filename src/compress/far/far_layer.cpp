#include "far_layer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

/// Log-masses of raw bases.
Tensor masses(const Tensor& k_BGSE, int64_t count) {
  const auto type = k_BGSE.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::zeros({k_BGSE.size(0), k_BGSE.size(1), count},
                   k_BGSE.options().dtype(type).requires_grad(false));
}

}  // namespace

FarView far_view(const LayerRules& rules, int64_t base, int64_t num_entries) {
  const LayerRules::Visible seen = rules.visible(base);
  // Entries of k-mers come first, then those of bases that are held as codes.
  const bool has_recent = rules.focus().recent.bases > 0;
  const int64_t num_summaries =
                    has_recent ? std::min(seen.entry_end - seen.entry_begin, num_entries) : num_entries,
                window = rules.plan().window_of(base),
                recent_begin = has_recent ? rules.recent_begin(window) : INT64_MAX;
  const auto inside = [=](int64_t i) { return std::clamp<int64_t>(i - seen.entry_begin, 0, num_summaries); };
  const auto entries_of = [=, &rules](int64_t kmer) {
    const int64_t of = rules.plan().window_of_kmer(kmer);
    const Span bases = rules.plan().kmer(of, kmer - rules.plan().kmers_before(of));
    if (bases.end <= recent_begin)
      return Span{inside(rules.entry_index(kmer)), inside(rules.entry_index(kmer + 1))};
    const int64_t first = num_summaries - recent_begin;
    return Span{first + std::max(bases.begin, recent_begin), std::min(first + bases.end, num_entries)};
  };
  return {.raw_begin = seen.raw_begin,
          .first_kmer = rules.sink_kmers(),
          .summaries = {inside(rules.sink_bases()), num_summaries},
          .entries_of = entries_of};
}

FarKeys::FarKeys(const FarConfig& config, const WindowPlan& windows)
    : scorer(reads_keys(config.score) ? make_far_scorer(config.score, windows, config.seeds, config.rank)
                                      : nullptr) {}

FarKeys FarKeys::clone() const {
  FarKeys out = snapshot();
  if (scorer) out.scorer = scorer->clone();
  return out;
}

FarKeys FarKeys::snapshot() const {
  FarKeys out;
  if (scorer) out.scorer = scorer->snapshot();
  out.tile = tile;
  out.choices = choices;
  return out;
}

void FarKeys::save(cache::TensorMap& out) const {
  if (!scorer) return;
  scorer->save(out);
  std::vector<int64_t> chosen = {tile};
  for (const FarChoice& choice : choices) {
    chosen.push_back(static_cast<int64_t>(choice.kmers.size()));
    chosen.insert(chosen.end(), choice.kmers.begin(), choice.kmers.end());
  }
  out["far.chosen"] = at::tensor(chosen, at::kLong);
}

void FarKeys::load(const cache::TensorMap& saved, const at::Device& device) {
  if (!scorer || !saved.contains("far.chosen")) return;
  scorer->load(saved, device);
  const Tensor chosen = cache::loaded_tensor(saved, "far.chosen", at::kCPU);
  const int64_t* next = chosen.const_data_ptr<int64_t>();
  const int64_t* const end = next + chosen.numel();
  tile = *next++;
  while (next < end) {
    const int64_t count = *next++;
    if (count > end - next)
      fail<CheckpointError>("a saved stream state chooses k-mers that it does not name");
    choices.emplace_back().kmers.assign(next, next + count);
    next += count;
  }
}

const FarStretch& FarLayer::at(int64_t base) const {
  const auto after = std::upper_bound(plan_.begin(), plan_.end(), base,
                                      [](int64_t b, const FarStretch& s) { return b < s.begin; });
  FOCUS_CHECK(after != plan_.begin() && base < std::prev(after)->end, "base ", base,
              " is not in this call of far memory");
  return *std::prev(after);
}

void FarLayer::take(int64_t first_base, const Tensor& k, const Tensor& v) {
  FOCUS_CHECK(store_ != nullptr, "a whole sequence keeps what it has");
  const int64_t end = first_base + k.size(2);
  for (int64_t kmer = store_->end(); kmer < windows_.kmers_completed(end); ++kmer) {
    const int64_t window = windows_.window_of_kmer(kmer);
    const Span bases = windows_.kmer(window, kmer - windows_.kmers_before(window));
    FOCUS_CHECK(bases.begin >= first_base, "k-mer ", kmer, " left before base ", first_base);
    const auto own = [&](const Tensor& t) { return t.narrow(2, bases.begin - first_base, bases.size()); };
    store_->append({own(k), own(v)});
  }
}

void FarLayer::show(const Tensor& k, const Tensor& v) {
  // Cut once, so that the gradients of all fetches are put together once.
  const int64_t length = k.size(2), count = windows_.kmers_completed(length);
  std::vector<int64_t> sizes;
  std::vector<bool> is_kmer;
  int64_t at = 0;
  const auto piece = [&](int64_t end, bool kmer) {
    if (end == at) return;
    sizes.push_back(end - at);
    is_kmer.push_back(kmer);
    at = end;
  };
  for (int64_t kmer = 0; kmer < count; ++kmer) {
    const int64_t window = windows_.window_of_kmer(kmer);
    const Span bases = windows_.kmer(window, kmer - windows_.kmers_before(window));
    piece(bases.begin, false);
    piece(bases.end, true);
  }
  piece(length, false);
  const std::vector<Tensor> all_k = k.split_with_sizes(sizes, 2), all_v = v.split_with_sizes(sizes, 2);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (!is_kmer[i]) continue;
    k_.push_back(all_k[i]);
    v_.push_back(all_v[i]);
  }
}

FarKmer FarLayer::fetch(int64_t kmer, const Tensor& like) {
  if (store_ != nullptr) return store_->read(kmer, like);
  const FarKmer raw{k_.at(static_cast<std::size_t>(kmer)), v_.at(static_cast<std::size_t>(kmer))};
  if (config_.store == FarStoreType::model) return raw;
  const auto [found, is_new] = rounded_.try_emplace(kmer);
  if (is_new) found->second = FarStore::rounded(config_.store, raw);
  return found->second;
}

const std::vector<FarChoice>& FarLayer::chosen_by_keys(int64_t base, const FarView& view, const Entries& past,
                                                       const Tensor& q) {
  FarTile tile = config_.tile(windows_, base);
  if (keys_.tile == tile.begin) return keys_.choices;
  FOCUS_CHECK(base == tile.begin, "base ", base, " asks for its tile's k-mers before the tile's first does");
  tile.past_end = std::min(tile.past_end, view.raw_begin);
  const at::NoGradGuard no_grad;
  std::vector<Tensor> k;
  Entries summaries;
  for (int64_t kmer = keys_.scorer->closed(); kmer < windows_.kmers_completed(tile.past_end); ++kmer) {
    k.push_back(fetch(kmer, q).k);
    if (config_.score != FarScore::fitted) continue;
    const Span own = past.empty() ? Span{} : view.entries_of(kmer);
    if (own.size() != 1)
      fail<ConfigError>(
          "far.score 'fitted' needs a memory that shows one entry for each k-mer of the past; "
          "k-mer ",
          kmer, " has ", own.size(), "; choose another far.score");
    summaries.append(past.slice(own.begin, own.end));
  }
  if (!k.empty()) keys_.scorer->close(at::cat(k, 2), summaries);
  keys_.tile = tile.begin;
  keys_.choices = keys_.scorer->choose(tile, config_.kmers, q.narrow(2, 0, 1));
  const int64_t first_kept = config_.first_kept(windows_, config_.tile(windows_, base).past_end);
  for (FarChoice& choice : keys_.choices)
    std::erase_if(choice.kmers, [&](int64_t kmer) { return kmer < first_kept; });
  return keys_.choices;
}

Entries FarLayer::seen(int64_t base, const FarView& view, const Entries& past, const Tensor& like) {
  const FarStretch& stretch = at(base);
  const std::vector<FarChoice>& choices =
      keys_.scorer ? chosen_by_keys(base, view, past, like) : stretch.choices;
  if (store_ != nullptr) store_->drop_before(stretch.first_kept);
  FOCUS_CHECK(static_cast<int64_t>(choices.size()) == like.size(0), "choices for ", choices.size(),
              " sequences of ", like.size(0));
  std::vector<Wanted> wanted;
  for (const FarChoice& choice : choices) {
    Wanted& own = wanted.emplace_back();
    for (const int64_t kmer : choice.kmers) {
      const int64_t window = windows_.window_of_kmer(kmer);
      // What is raw in this layer is seen as it is.
      const bool gone = windows_.kmer(window, kmer - windows_.kmers_before(window)).end <= view.raw_begin;
      if (gone && kmer >= view.first_kmer) own.kmers.push_back(kmer);
    }
    own.summaries = config_.gate == 0 || choice.best_votes < config_.gate || own.kmers.empty();
  }
  const auto fetches = [](const Wanted& own) { return !own.kmers.empty(); };
  if (std::none_of(wanted.begin(), wanted.end(), fetches)) return past;
  if (std::all_of(wanted.begin(), wanted.end(), [&](const Wanted& own) { return own == wanted[0]; }))
    return joined(wanted[0], view, past, like);

  // Sequences of a batch that see differently many are filled up by entries without a mass.
  std::vector<Entries> rows;
  int64_t longest = 0;
  for (std::size_t item = 0; item < wanted.size(); ++item) {
    Entries own = past;
    const auto row = [&](const Tensor& t) {
      return t.defined() ? t.narrow(0, static_cast<int64_t>(item), 1) : t;
    };
    own.k = row(past.k), own.v = row(past.v), own.beta = row(past.beta);
    own = joined(wanted[item], view, own, row(like), static_cast<int64_t>(item));
    longest = std::max(longest, own.size());
    rows.push_back(std::move(own));
  }
  const auto widest = std::max_element(
      rows.begin(), rows.end(), [](const Entries& a, const Entries& b) { return a.size() < b.size(); });
  std::vector<Tensor> k, v, beta;
  for (Entries& row : rows) {
    const int64_t missing = longest - row.size();
    if (row.empty()) {
      row.k = widest->k.narrow(2, 0, 0), row.v = widest->v.narrow(2, 0, 0);
      row.beta = masses(row.k, 0);
    }
    add_zero_beta(row);
    k.push_back(at::constant_pad_nd(row.k, {0, 0, 0, missing}));
    v.push_back(at::constant_pad_nd(row.v, {0, 0, 0, missing}));
    beta.push_back(at::constant_pad_nd(row.beta, {0, missing}, -std::numeric_limits<double>::infinity()));
  }
  Entries out;
  out.k = at::cat(k, 0), out.v = at::cat(v, 0), out.beta = at::cat(beta, 0);
  return out;
}

Entries FarLayer::joined(const Wanted& wanted, const FarView& view, const Entries& past, const Tensor& like,
                         int64_t item) {
  std::vector<Tensor> k, v, beta;
  int64_t at = 0;
  const auto keep = [&](int64_t end) {
    if (end <= at) return;
    k.push_back(past.k.narrow(2, at, end - at));
    v.push_back(past.v.narrow(2, at, end - at));
    if (past.beta.defined()) beta.push_back(past.beta.narrow(2, at, end - at));
  };
  const auto leave = [&](const Span& entries) {
    if (entries.size() <= 0) return;
    keep(entries.begin);
    at = entries.end;
  };
  std::vector<Span> left;
  for (const int64_t kmer : wanted.kmers) left.push_back(view.entries_of(kmer));
  if (!wanted.summaries) {
    std::erase_if(left, [&](const Span& own) {
      return own.begin >= view.summaries.begin && own.end <= view.summaries.end;
    });
    left.push_back(view.summaries);
    std::ranges::sort(left, {}, &Span::begin);
  }
  for (const Span& own : left) leave(own);
  keep(past.size());
  int64_t fetched = 0;
  for (const int64_t kmer : wanted.kmers) {
    const FarKmer part = fetch(kmer, like);
    k.push_back(item < 0 ? part.k : part.k.narrow(0, item, 1));
    v.push_back(item < 0 ? part.v : part.v.narrow(0, item, 1));
    fetched += part.k.size(2);
  }
  Entries out;
  if (k.empty()) return out;
  out.k = at::cat(k, 2), out.v = at::cat(v, 2);
  if (beta.empty()) return out;
  if (fetched > 0) beta.push_back(masses(k.back(), fetched).to(beta[0].scalar_type()));
  out.beta = at::cat(beta, 2);
  return out;
}

}  // namespace focus::compress
