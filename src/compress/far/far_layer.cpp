#include "far_layer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "window_recompute.h"

namespace focus::compress {
namespace {

using at::Tensor;

// Entries that are hidden are read for nothing, and cut out they make one more part: as many as a block of
// keys cost the same.
constexpr int64_t kWorthACut = 64;

/// `memory` without these entries, `hidden` ascending: few beside each other lose their mass, many are left
/// out.
ops::Memory without(const ops::Memory& memory, const std::vector<Span>& hidden) {
  ops::Memory out;
  int64_t first = 0;
  for (const ops::MemoryPart& part : memory.parts) {
    const int64_t size = part.size();
    int64_t at = 0;  // of the part
    std::vector<int64_t> few;
    const auto keep = [&](int64_t end) {
      if (at >= end) return;
      ops::MemoryPart kept = at == 0 && end == size ? part : part.narrow(at, end - at);
      if (!few.empty()) {
        // In one piece from the host: a list comes with every few queries.
        const Tensor lost = at::zeros({end - at}, at::kFloat);
        auto* const masses = lost.mutable_data_ptr<float>();
        for (const int64_t entry : few) masses[entry - at] = -std::numeric_limits<float>::infinity();
        few.clear();
        const Tensor& k = kept.in_codes() ? kept.k_codes.codes : kept.k;
        const Tensor there = ops::from_host(lost, k.device());
        kept.beta = kept.beta.defined() ? kept.beta + there
                                        : there.expand({k.size(0), k.size(1), end - at}).contiguous();
      }
      out.parts.push_back(std::move(kept));
    };
    for (const Span& span : hidden) {
      const Span own{std::max(span.begin - first, at), std::min(span.end - first, size)};
      if (own.size() <= 0) continue;
      if (own.size() < kWorthACut) {
        for (int64_t entry = own.begin; entry < own.end; ++entry) few.push_back(entry);
        continue;
      }
      keep(own.begin);
      at = own.end;
    }
    keep(size);
    first += size;
  }
  return out;
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
    const bool sinks = bases.begin < rules.sink_bases();  // no summary stands between them and the codes
    return Span{sinks ? inside(rules.entry_index(kmer)) : first + std::max(bases.begin, recent_begin),
                std::min(first + bases.end, num_entries)};
  };
  return {.raw_begin = seen.raw_begin,
          .first_kmer = rules.sink_kmers(),
          .summaries = {inside(rules.sink_bases()), num_summaries},
          .entries_of = entries_of};
}

FarKeys::FarKeys(const FarConfig& config, const WindowPlan& windows)
    : scorer(reads_keys(config.score) ? make_far_scorer(config.score, windows, config.seeds, config.rank)
                                      : nullptr),
      used(windows, config.keep) {}

void FarKeys::save(cache::TensorMap& out) const {
  if (!scorer) return;
  scorer->save(out);
  used.save(out);
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
  used.load(saved);
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
  std::vector<FarKmer> leaving;
  for (int64_t kmer = store_->end(); kmer < windows_.kmers_completed(end); ++kmer) {
    const int64_t window = windows_.window_of_kmer(kmer);
    const Span bases = windows_.kmer(window, kmer - windows_.kmers_before(window));
    FOCUS_CHECK(bases.begin >= first_base, "k-mer ", kmer, " left before base ", first_base);
    const auto own = [&](const Tensor& t) { return t.narrow(2, bases.begin - first_base, bases.size()); };
    leaving.push_back({own(k), own(v)});
  }
  store_->append(leaving);
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

ops::MemoryPart FarLayer::fetch(int64_t kmer, const Tensor& like) {
  if (store_ != nullptr) return store_->read(kmer, like);
  const FarKmer raw{k_.at(static_cast<std::size_t>(kmer)), v_.at(static_cast<std::size_t>(kmer))};
  if (config_.store == FarStoreType::model) return {raw.k, raw.v};
  const auto [found, is_new] = rounded_.try_emplace(kmer);
  if (is_new) found->second = FarStore::rounded(config_.store, raw);
  return found->second;
}

const std::vector<FarChoice>& FarLayer::chosen_by_keys(int64_t base, const FarView& view,
                                                       const ops::Memory& past, const nn::Projection& now) {
  const Tensor& q = now.q;
  FarTile tile = config_.tile(windows_, base);
  if (keys_.tile == tile.begin) return keys_.choices;
  FOCUS_CHECK(base == tile.begin, "base ", base, " asks for its tile's k-mers before the tile's first does");
  tile.past_end = std::min(tile.past_end, view.raw_begin);
  const at::NoGradGuard no_grad;
  keys_.scorer->see(q.narrow(2, 0, 1), now.k.size(1));
  std::vector<Tensor> k;
  Entries summaries;
  for (int64_t kmer = keys_.scorer->closed(); kmer < windows_.kmers_completed(tile.past_end); ++kmer) {
    k.push_back(fetch(kmer, q).decoded(q.scalar_type()).k);
    if (config_.score != FarScore::fitted) continue;
    const Span own = past.size() == 0 ? Span{} : view.entries_of(kmer);
    if (own.size() != 1)
      fail<ConfigError>(
          "far.score 'fitted' needs a memory that shows one entry for each k-mer of the past; "
          "k-mer ",
          kmer, " has ", own.size(), "; choose another far.score");
    const ops::MemoryPart summary = past.narrow(own.begin, 1).parts.at(0).decoded(q.scalar_type());
    summaries.append({summary.k, summary.v, summary.beta, {}});
  }
  if (!k.empty()) keys_.scorer->close(at::cat(k, 2), summaries);
  keys_.tile = tile.begin;
  keys_.choices = keys_.scorer->choose(tile, config_.kmers, q.narrow(2, 0, 1));
  const int64_t first_kept = config_.first_kept(windows_, config_.tile(windows_, base).past_end);
  for (FarChoice& choice : keys_.choices)
    std::erase_if(choice.kmers, [&](int64_t kmer) { return kmer < first_kept; });
  if (config_.evicts_by_use()) {
    keys_.used.close(q.size(0), windows_.kmers_completed(tile.past_end), tile.begin);
    for (std::size_t b = 0; b < keys_.choices.size(); ++b) keys_.used.fetch(b, keys_.choices[b], tile.begin);
  }
  return keys_.choices;
}

std::vector<FarLayer::Wanted> FarLayer::wanted(int64_t base, const FarView& view, const ops::Memory& past,
                                               const nn::Projection& now) {
  const Tensor& q = now.q;
  const FarStretch& stretch = at(base);
  const std::vector<FarChoice>& choices =
      keys_.scorer ? chosen_by_keys(base, view, past, now) : stretch.choices;
  if (store_ != nullptr) {
    store_->drop_before(stretch.first_kept);
    store_->drop_unless(keys_.scorer ? keys_.used.held() : stretch.held);
  }
  FOCUS_CHECK(static_cast<int64_t>(choices.size()) == q.size(0), "choices for ", choices.size(),
              " sequences of ", q.size(0));
  std::vector<Wanted> out;
  for (const FarChoice& choice : choices) {
    Wanted& own = out.emplace_back();
    for (const int64_t kmer : choice.kmers) {
      const int64_t window = windows_.window_of_kmer(kmer);
      // What is raw in this layer is seen as it is.
      const bool gone = windows_.kmer(window, kmer - windows_.kmers_before(window)).end <= view.raw_begin;
      if (gone && kmer >= view.first_kmer) own.kmers.push_back(kmer);
    }
    own.summaries = config_.gate == 0 || choice.best_votes < config_.gate || own.kmers.empty();
  }
  return out;
}

ops::Memory FarLayer::seen(const Wanted& wanted, const FarView& view, const ops::Memory& past,
                           const Tensor& like) {
  if (wanted.kmers.empty()) return past;
  std::vector<Span> hidden;
  for (const int64_t kmer : wanted.kmers) hidden.push_back(view.entries_of(kmer));
  if (!wanted.summaries) {
    std::erase_if(hidden, [&](const Span& own) {
      return own.begin >= view.summaries.begin && own.end <= view.summaries.end;
    });
    // Of a k-mer with sinks these are hidden besides.
    for (Span& own : hidden) {
      if (own.begin < view.summaries.begin) own.end = std::min(own.end, view.summaries.begin);
    }
    hidden.push_back(view.summaries);
    std::ranges::sort(hidden, {}, &Span::begin);
  }
  ops::Memory out = without(past, hidden);
  for (const int64_t kmer : wanted.kmers) out.parts.push_back(fetch(kmer, like));
  return out;
}

Tensor FarLayer::attend(int64_t base, const FarView& view, const ops::Memory& past, const nn::Projection& now,
                        bool recompute) {
  const int64_t end = base + now.q.size(2);
  std::vector<Tensor> rows;  // [B, queries, H, E], as attention makes them
  for (int64_t from = base; from < end;) {
    const int64_t to = std::min(stretch_end(from), end), visible = now.k.size(2) - (end - to);
    const nn::Projection own{now.q.narrow(2, from - base, to - from), now.k.narrow(2, 0, visible),
                             now.v.narrow(2, 0, visible)};
    rows.push_back(attend_stretch(from, view, past, own, recompute).transpose(1, 2));
    from = to;
  }
  return rows.size() == 1 ? rows[0].transpose(1, 2) : at::cat(rows, 1).transpose(1, 2);
}

Tensor FarLayer::attend_stretch(int64_t base, const FarView& view, const ops::Memory& past,
                                const nn::Projection& now, bool recompute) {
  const std::vector<Wanted> all = wanted(base, view, past, now);
  if (std::ranges::all_of(all, [&](const Wanted& own) { return own == all[0]; }))
    return compress::attend(now.q, seen(all[0], view, past, now.q), now.k, now.v, recompute);
  std::vector<Tensor> rows;
  for (std::size_t item = 0; item < all.size(); ++item) {
    const auto b = static_cast<int64_t>(item);
    const auto own = [b](const Tensor& t) { return t.narrow(0, b, 1); };
    const ops::Memory memory = seen(all[item], view, past, now.q).of_sequence(b);
    rows.push_back(compress::attend(own(now.q), memory, own(now.k), own(now.v), recompute));
  }
  return at::cat(rows, 0);
}

}  // namespace focus::compress
