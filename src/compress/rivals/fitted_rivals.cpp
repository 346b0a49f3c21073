#include "fitted_rivals.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "held_out_check.h"
#include "key_selection.h"
#include "log_mass_fit.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr double kEven = 0.5;   // share of the surprise that is spread evenly
const FittedUnitConfig kFit{};  // the fitted unit's defaults

References references(const ClosedSpan& span) {
  return references(span, every_base(span, kFit.reference_stride));
}

Tensor near_own(const References& own, const ClosedSpan& span) {
  return near_own(own, span.num_bases(), kFit.leave_out);
}

void check(const ClosedSpan& span, Entries& fits, const Tensor& stands_for = {}, const Tensor& made_of = {}) {
  if (kFit.check) check_entries(span, stands_for, made_of, kFit, fits);
}

/// `count` groups of whole k-mers, as even as they can be; together they cover the span, bases without a
/// k-mer included.
std::vector<Span> groups_of_kmers(const ClosedSpan& span, int64_t count) {
  const auto kmers = static_cast<int64_t>(span.kmers.size());
  std::vector<Span> out;
  int64_t begin = 0;
  for (int64_t i = 1; i <= count; ++i) {
    const auto last = static_cast<std::size_t>(i * kmers / count - 1);
    const int64_t end = i == count ? span.num_bases() : span.kmers[last].end;
    out.push_back({begin, end});
    begin = end;
  }
  return out;
}

/// Merges up to `count` pairs of neighbours, no two pairs with an entry in common, where it costs least: by a
/// pair's extent against its distance from base `end`.
void merge_neighbours(const Tensor& references, const Tensor& like, int64_t end, int64_t count,
                      EntryStore& retained) {
  // Merged entries were appended at the end: neighbours are found by their origins.
  std::vector<std::pair<int64_t, int64_t>> entries;  // first base, index
  for (const EntryOrigin& origin : retained.origin())
    entries.emplace_back(origin.index, static_cast<int64_t>(entries.size()));
  std::sort(entries.begin(), entries.end());
  const std::size_t size = entries.size();
  FOCUS_CHECK(size > 1, "a budget of no entry");
  std::vector<std::pair<double, std::size_t>> pairs;  // cost, the left one
  for (std::size_t i = 0; i + 1 < size; ++i) {
    const int64_t begin = entries[i].first, behind = i + 2 < size ? entries[i + 2].first : end;
    pairs.emplace_back(static_cast<double>(behind - begin) / static_cast<double>(end - begin), i);
  }
  std::sort(pairs.begin(), pairs.end());
  std::vector<bool> taken(size, false);
  std::vector<int64_t> merged, rest;
  std::vector<Span> groups;
  std::vector<EntryOrigin> origins;
  for (const auto& [cost, left] : pairs) {
    const auto made = static_cast<int64_t>(groups.size());
    if (made == count || taken[left] || taken[left + 1]) continue;
    taken[left] = taken[left + 1] = true;
    merged.insert(merged.end(), {entries[left].second, entries[left + 1].second});
    groups.push_back({2 * made, 2 * made + 2});
    origins.push_back(retained.origin()[static_cast<std::size_t>(entries[left].second)]);
  }
  for (std::size_t i = 0; i < size; ++i) {
    if (!taken[i]) rest.push_back(entries[i].second);
  }
  const Entries all = retained.read(like);
  const Tensor index = ops::from_host(merged, like.device());
  const auto pick = [&](const Tensor& t) { return t.index_select(2, index); };
  Entries coarse =
      fit_log_mass(references, {pick(all.k), pick(all.v), pick(all.beta), {}}, groups, FittedKey::free);
  coarse.origin = std::move(origins);
  retained.select(rest);
  retained.append(coarse);
}

}  // namespace

std::vector<Span> equal_shares(const std::vector<double>& weights, int64_t count) {
  const auto items = static_cast<int64_t>(weights.size());
  FOCUS_CHECK(count >= 1 && count <= items, count, " shares of ", items, " items");
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<Span> out;
  double sum = 0;
  int64_t begin = 0;
  for (int64_t end = 1, made = 1; end <= items && made < count; ++end) {
    sum += weights[static_cast<std::size_t>(end - 1)];
    // Enough weight, or as many items left as there are shares to come.
    if (sum * static_cast<double>(count) >= total * static_cast<double>(made) ||
        items - end == count - made) {
      out.push_back({begin, end});
      begin = end;
      ++made;
    }
  }
  out.push_back({begin, items});
  return out;
}

Entries window_mass(const ClosedSpan& span, int64_t) {
  const std::vector<Span> whole = {{0, span.num_bases()}};
  const References own = references(span);
  Entries out = fit_log_mass(own.q, {span.k, span.v, {}, near_own(own, span)}, whole, FittedKey::zero);
  check(span, out);
  out.origin = window_origins(span, 1);
  return out;
}

Entries heavy_fitted(const ClosedSpan& span, int64_t room) {
  const int64_t bases = span.num_bases();
  if (room == bases) return raw_entries(span);
  const auto kmers = static_cast<int64_t>(span.kmers.size());
  const int64_t fitted = std::min({(kmers + kKmersPerEntry - 1) / kKmersPerEntry, kmers, room});
  const int64_t exact = room - fitted;
  const References own = references(span);
  FitItems items{span.k, span.v, {}, near_own(own, span)};
  Entries out;
  Tensor heaviest;
  if (exact > 0) {
    heaviest = top_bases(at::softmax(scores_of(own.q, span.k), -1).sum(2), exact);
    out = raw_entries_per_head(span, heaviest);
    out.beta = at::zeros({span.k.size(0), span.k.size(1), exact}, span.k.options().dtype(at::kFloat));
    items.log_mass = at::zeros({span.k.size(0), span.k.size(1), bases}, own.q.options())
                         .scatter(2, heaviest, -std::numeric_limits<double>::infinity());
  }
  Entries rest = fit_log_mass(own.q, items, groups_of_kmers(span, fitted), FittedKey::free);
  check(span, rest, items.log_mass.defined() ? items.log_mass.eq(0) : Tensor());
  rest.origin = window_origins(span, fitted);
  out.append(rest);
  if (exact > 0) {
    const Tensor fits = at::full({heaviest.size(0), heaviest.size(1), fitted}, -1, heaviest.options());
    check(span, out, {}, at::cat({heaviest, fits}, 2));
  }
  return out;
}

Entries adaptive(const ClosedSpan& span, int64_t room) {
  return fit_equal_shares(span, at::softmax(scores_of(future_queries(span), span.k), -1).sum({1, 2}), room);
}

Entries fit_equal_shares(const ClosedSpan& span, const Tensor& surprise, int64_t room) {
  const References own = references(span);
  const Tensor near = near_own(own, span);
  const Tensor wide = ops::to_host(surprise.to(at::kDouble)).contiguous();
  const double even = kEven / static_cast<double>(span.num_bases());
  std::vector<Tensor> k, v, beta;
  // The boundaries are each sequence's own.
  for (int64_t b = 0; b < span.k.size(0); ++b) {
    const double* of_bases = wide[b].const_data_ptr<double>();
    std::vector<double> weights(of_bases, of_bases + span.num_bases());
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& w : weights) w = (total > 0 ? (1 - kEven) * w / total : 0.0) + even;
    const auto of_b = [&](const Tensor& t) { return t.narrow(0, b, 1); };
    const FitItems items{of_b(span.k), of_b(span.v), {}, near};
    const Entries one = fit_log_mass(of_b(own.q), items, equal_shares(weights, room), FittedKey::free);
    k.push_back(one.k);
    v.push_back(one.v);
    beta.push_back(one.beta);
  }
  Entries out{at::cat(k, 0), at::cat(v, 0), at::cat(beta, 0), window_origins(span, room)};
  check(span, out);
  return out;
}

void multires(const ClosedSpan& span, const Budget& budget, EntryStore& retained) {
  const int64_t bases = span.num_bases(), allowed = held_by(span, budget, retained, /*with_beta=*/true);
  const Tensor references = future_queries(span);
  if (!span.kmers.empty()) {
    const std::vector<double> even(static_cast<std::size_t>(bases), 1.0);
    const auto kmers = static_cast<int64_t>(span.kmers.size());
    const std::vector<Span> fine = equal_shares(even, std::min(kFiner * kmers, bases));
    // Nothing is left out: of so few bases that costs more than it gains (R on chr22: 23.4 % against 24.2 %).
    Entries newest = fit_log_mass(references, {span.k, span.v, {}, {}}, fine, FittedKey::free);
    check(span, newest);
    for (const Span& group : fine) newest.origin.push_back({span.window, span.first_base + group.begin});
    retained.append(newest);
  }
  while (retained.size() > allowed)
    merge_neighbours(references, span.k, span.first_base + bases, retained.size() - allowed, retained);
}

}  // namespace focus::compress
