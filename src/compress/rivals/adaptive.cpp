#include "adaptive.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "focus/core/error.h"
#include "log_mass_fit.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr double kEven = 0.5;  // share of the surprise that is spread evenly

std::vector<double> to_vector(const Tensor& t) {
  const Tensor flat = t.to(at::kCPU, at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

}  // namespace

std::vector<Span> equal_shares(const std::vector<double>& weights, int64_t count) {
  const auto items = static_cast<int64_t>(weights.size());
  FOCUS_CHECK(count >= 1 && count <= items, count, " shares of ", items, " items");
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<Span> out;
  double sum = 0;
  int64_t begin = 0;
  for (int64_t end = 1; end <= items && static_cast<int64_t>(out.size()) < count - 1; ++end) {
    sum += weights[static_cast<std::size_t>(end - 1)];
    const auto made = static_cast<int64_t>(out.size()) + 1;
    // Enough weight, or as many items left as there are shares to come.
    if (sum * static_cast<double>(count) >= total * static_cast<double>(made) || items - end == count - made) {
      out.push_back({begin, end});
      begin = end;
    }
  }
  out.push_back({begin, items});
  return out;
}

std::string AdaptivePolicy::describe() const {
  return concat("fitted entries of k-mers with equal shares of surprise, ",
                surprise_BL_.defined() ? "the entropy of each base under state_only memory (a second pass)" : "the layer's attention mass");
}

void AdaptivePolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  const int64_t bases = span.num_bases(), room = std::min(room_for(span, budget_, retained, /*with_beta=*/true), bases);
  if (room == 0) return;
  const Tensor references = future_queries(span);
  Tensor surprise;  // [B, n]
  if (surprise_BL_.defined()) {
    FOCUS_CHECK(surprise_BL_.size(0) == span.k.size(0) && surprise_BL_.size(1) >= span.first_base + bases, "surprise of ",
                surprise_BL_.sizes(), " for bases up to ", span.first_base + bases);
    surprise = surprise_BL_.narrow(1, span.first_base, bases);
  } else {
    surprise = at::softmax(scores_of(references, span.k), -1).sum({1, 2});
  }
  Entries out;
  std::vector<Tensor> k, v, beta;
  // The boundaries are each sequence's own.
  for (int64_t b = 0; b < span.k.size(0); ++b) {
    std::vector<double> weights = to_vector(surprise[b]);
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0), even = kEven / static_cast<double>(bases);
    for (double& w : weights) w = (total > 0 ? (1 - kEven) * w / total : 0.0) + even;
    const Entries one = fit_log_mass(references.narrow(0, b, 1), {span.k.narrow(0, b, 1), span.v.narrow(0, b, 1), {}},
                                     equal_shares(weights, room), FittedKey::free);
    k.push_back(one.k);
    v.push_back(one.v);
    beta.push_back(one.beta);
  }
  out.k = at::cat(k, 0);
  out.v = at::cat(v, 0);
  out.beta = at::cat(beta, 0);
  out.origin = window_origins(span, room);
  retained.append(out);
}

std::string MultiresPolicy::describe() const {
  return concat("fitted entries, ", kFiner, " times finer than k in the newest window, merged with their neighbours as they grow older");
}

void MultiresPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  const int64_t bases = span.num_bases(), end = span.first_base + bases, allowed = held_by(span, budget_, retained, /*with_beta=*/true);
  const Tensor references = future_queries(span);
  const auto kmers = static_cast<int64_t>(span.kmers.size());
  if (kmers > 0) {
    const std::vector<Span> fine = equal_shares(std::vector<double>(static_cast<std::size_t>(bases), 1.0), std::min(kFiner * kmers, bases));
    Entries newest = fit_log_mass(references, {span.k, span.v, {}}, fine, FittedKey::free);
    for (const Span& group : fine) newest.origin.push_back({span.window, span.first_base + group.begin});
    retained.append(newest);
  }
  while (retained.size() > allowed) {
    // Merged entries were appended at the end: neighbours are found by their origins.
    const auto& origin = retained.origin();
    std::vector<int64_t> order(origin.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto first_base = [&](int64_t i) { return origin[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])].index; };
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return origin[static_cast<std::size_t>(a)].index < origin[static_cast<std::size_t>(b)].index; });
    // A pair's cost is its extent against its distance. Pairs of one round share no entry.
    struct Pair {
      double cost;
      int64_t left;
    };
    std::vector<Pair> pairs;
    const int64_t size = retained.size();
    FOCUS_CHECK(size > 1, "a budget of no entry");
    for (int64_t i = 0; i + 1 < size; ++i) {
      const int64_t begin = first_base(i), behind = i + 2 < size ? first_base(i + 2) : end;
      pairs.push_back({static_cast<double>(behind - begin) / static_cast<double>(end - begin), i});
    }
    std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.cost < b.cost; });
    std::vector<bool> taken(static_cast<std::size_t>(size), false);
    std::vector<int64_t> merged, rest;
    for (const Pair& pair : pairs) {
      const auto left = static_cast<std::size_t>(pair.left);
      if (static_cast<int64_t>(merged.size()) / 2 == size - allowed || taken[left] || taken[left + 1]) continue;
      taken[left] = taken[left + 1] = true;
      merged.insert(merged.end(), {order[left], order[left + 1]});
    }
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (!taken[i]) rest.push_back(order[i]);
    }
    const Entries all = retained.read(span.k);
    const Tensor index = at::tensor(merged, at::kLong).to(span.k.device());
    std::vector<Span> groups;
    std::vector<EntryOrigin> origins;
    for (std::size_t i = 0; i < merged.size(); i += 2) {
      groups.push_back({static_cast<int64_t>(i), static_cast<int64_t>(i) + 2});
      origins.push_back(origin[static_cast<std::size_t>(merged[i])]);
    }
    Entries coarse = fit_log_mass(references, {all.k.index_select(2, index), all.v.index_select(2, index), all.beta.index_select(2, index)},
                                  groups, FittedKey::free);
    coarse.origin = std::move(origins);
    retained.select(rest);
    retained.append(coarse);
  }
}

}  // namespace focus::compress
