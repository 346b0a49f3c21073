#include "key_selection.h"

#include <cmath>

#include "focus/core/error.h"
#include "span_entries.h"

namespace focus::compress {

using at::Tensor;

Tensor top_bases(const Tensor& score_BGN, int64_t count) { return std::get<0>(std::get<1>(at::topk(score_BGN, count, -1)).sort(-1)); }

void KeySelectionPolicy::close(const ClosedSpan& span, EntryStore& retained) const {
  const int64_t bases = span.num_bases(), count = std::min(room_for(span, budget_, retained, /*with_beta=*/false), bases);
  if (count == 0) return;
  retained.append(count == bases ? raw_entries(span, 0, bases) : raw_entries_per_head(span, top_bases(score(span), count)));
}

std::string SnapKvPolicy::describe() const {
  return concat("raw keys and values that get most attention from the window's last ", kObserved, " queries, the largest of ",
                kNeighbourhood, " neighbours, per head");
}

Tensor SnapKvPolicy::score(const ClosedSpan& span) const {
  const int64_t bases = span.num_bases(), observed = std::min(kObserved, bases);
  const Tensor queries =
      span.q.narrow(2, bases - observed, observed).to(compute_options(span.q)).unflatten(1, {span.k.size(1), -1});  // [B, G, H/G, Q, E]
  const Tensor keys = span.k.unsqueeze(2).to(queries.scalar_type());
  const Tensor scores = at::matmul(queries, keys.transpose(-1, -2)) / std::sqrt(static_cast<double>(span.k.size(3)));
  const Tensor later = at::ones({observed, bases}, at::TensorOptions().dtype(at::kBool).device(span.k.device())).triu(bases - observed + 1);
  const Tensor votes = at::softmax(scores.masked_fill(later, -std::numeric_limits<double>::infinity()), -1).sum({2, 3});  // [B, G, n]
  // Padding never wins: votes are not negative, and a pooling window holds at least its own base.
  return at::max_pool1d(votes, {kNeighbourhood}, {1}, {kNeighbourhood / 2});
}

Tensor ExpectedAttentionPolicy::score(const ClosedSpan& span) const {
  const double scale = 1.0 / std::sqrt(static_cast<double>(span.k.size(3)));
  const int64_t groups = span.k.size(1);
  // Each query head has a distribution of its own: the references of one head stand one behind the other.
  const Tensor queries = future_queries(span).unflatten(2, {span.q.size(1) / groups, -1}) * scale;  // [B, G, H/G, n, E]
  const Tensor keys = span.k.to(queries.scalar_type()).unsqueeze(2);                                // [B, G, 1, n, E]
  const Tensor mean = queries.mean(3, /*keepdim=*/true), centred = queries - mean;
  const Tensor along = at::matmul(mean, keys.transpose(-1, -2)).squeeze(3);  // [B, G, H/G, n]
  const Tensor covariance = at::matmul(centred.transpose(-1, -2), centred) / static_cast<double>(queries.size(3));
  const Tensor spread = (at::matmul(keys, covariance) * keys).sum(-1);
  return at::logsumexp(along + spread / 2, 2) + span.v.to(queries.scalar_type()).norm(2, -1).log();
}

Tensor HeavyPolicy::score(const ClosedSpan& span) const { return at::softmax(scores_of(future_queries(span), span.k), -1).sum(2); }

}  // namespace focus::compress
