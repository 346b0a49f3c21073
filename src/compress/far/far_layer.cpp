#include "far_layer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "focus/core/error.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr double kHidden = -std::numeric_limits<double>::infinity();

}  // namespace

FarView far_view(const LayerRules& rules, int64_t base, int64_t num_entries) {
  const LayerRules::Visible seen = rules.visible(base);
  const auto clipped = [=](int64_t begin, int64_t end) {
    const auto inside = [=](int64_t i) { return std::clamp<int64_t>(i - seen.entry_begin, 0, num_entries); };
    return Span{inside(begin), inside(end)};
  };
  return {.raw_begin = seen.raw_begin,
          .first_kmer = rules.sink_kmers(),
          .summaries = clipped(rules.sink_bases(), seen.entry_begin + num_entries),
          .entries_of = [&rules, clipped](int64_t kmer) {
            return clipped(rules.entry_index(kmer), rules.entry_index(kmer + 1));
          }};
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

Entries FarLayer::seen(int64_t base, const FarView& view, Entries past, const Tensor& like) {
  const FarStretch& stretch = at(base);
  if (store_ != nullptr) store_->drop_before(stretch.first_kept);
  const int64_t batch = like.size(0);
  FOCUS_CHECK(static_cast<int64_t>(stretch.choices.size()) == batch, "choices for ", stretch.choices.size(),
              " sequences of ", batch);
  // What is raw in this layer is seen as it is.
  std::vector<std::vector<int64_t>> fetched;
  int64_t longest = 0;
  std::vector<int64_t> lengths;
  for (const FarChoice& choice : stretch.choices) {
    std::vector<int64_t>& own = fetched.emplace_back();
    int64_t length = 0;
    for (const int64_t kmer : choice.kmers) {
      const int64_t window = windows_.window_of_kmer(kmer);
      const Span bases = windows_.kmer(window, kmer - windows_.kmers_before(window));
      if (kmer < view.first_kmer || bases.end > view.raw_begin) continue;
      own.push_back(kmer);
      length += bases.size();
    }
    lengths.push_back(length);
    longest = std::max(longest, length);
  }
  if (longest == 0) return past;

  const auto type = like.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto no_mass = [&](int64_t heads, int64_t count) {
    return at::zeros({batch, heads, count}, like.options().dtype(type).requires_grad(false));
  };
  // Summaries leave with their mass.
  const bool one = batch == 1;
  bool copied = false;
  const auto hide = [&](int64_t item, const Span& entries) {
    if (entries.size() <= 0) return;
    if (!copied) past.beta = past.beta.defined() ? past.beta.clone() : no_mass(past.k.size(1), past.size());
    copied = true;
    past.beta.narrow(0, item, 1).narrow(2, entries.begin, entries.size()).fill_(kHidden);
  };
  for (int64_t item = 0; item < batch && !past.empty(); ++item) {
    const auto i = static_cast<std::size_t>(item);
    const bool gated = config_.gate > 0 && !fetched[i].empty() &&
                       stretch.choices[i].best_votes >= config_.gate;
    if (gated && one) {
      past = past.slice(0, view.summaries.begin);
    } else if (gated) {
      hide(item, view.summaries);
    } else {
      for (const int64_t kmer : fetched[i]) hide(item, view.entries_of(kmer));
    }
  }

  Entries more;
  const bool alike = std::all_of(fetched.begin(), fetched.end(), [&](const auto& f) { return f == fetched[0]; });
  const auto joined = [&](const std::vector<int64_t>& kmers, int64_t item) {
    std::vector<Tensor> k, v;
    for (const int64_t kmer : kmers) {
      const FarKmer part = fetch(kmer, like);
      k.push_back(item < 0 ? part.k : part.k.narrow(0, item, 1));
      v.push_back(item < 0 ? part.v : part.v.narrow(0, item, 1));
    }
    return FarKmer{at::cat(k, 2), at::cat(v, 2)};
  };
  if (alike) {
    const FarKmer all = joined(fetched[0], -1);
    more.k = all.k, more.v = all.v;
  } else {
    std::vector<Tensor> k, v, beta;
    const int64_t heads = fetch(fetched[static_cast<std::size_t>(
        std::max_element(lengths.begin(), lengths.end()) - lengths.begin())].front(), like).k.size(1);
    for (std::size_t i = 0; i < fetched.size(); ++i) {
      const int64_t missing = longest - lengths[i];
      const auto options = like.options().requires_grad(false);
      FarKmer own{at::zeros({1, heads, missing, like.size(3)}, options),
                  at::zeros({1, heads, missing, like.size(3)}, options)};
      if (!fetched[i].empty()) {
        const FarKmer there = joined(fetched[i], static_cast<int64_t>(i));
        own = {at::cat({there.k, own.k}, 2), at::cat({there.v, own.v}, 2)};
      }
      Tensor mass = at::zeros({1, heads, longest}, options.dtype(type));
      mass.narrow(2, lengths[i], missing).fill_(kHidden);
      k.push_back(own.k), v.push_back(own.v), beta.push_back(mass);
    }
    more.k = at::cat(k, 0), more.v = at::cat(v, 0), more.beta = at::cat(beta, 0);
  }
  if (past.empty()) return more;
  if (past.beta.defined() && !more.beta.defined()) more.beta = no_mass(more.k.size(1), longest);
  if (!past.beta.defined() && more.beta.defined()) past.beta = no_mass(past.k.size(1), past.size());
  if (more.beta.defined()) more.beta = at::cat({past.beta, more.beta.to(past.beta.scalar_type())}, 2);
  more.k = at::cat({past.k, more.k}, 2);
  more.v = at::cat({past.v, more.v}, 2);
  return more;
}

}  // namespace focus::compress
