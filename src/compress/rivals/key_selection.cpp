#include "key_selection.h"

#include <cmath>
#include <limits>

#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

Entries best(const ClosedSpan& span, const Tensor& score_BGN, int64_t room) {
  if (room == span.num_bases()) return raw_entries(span);
  return raw_entries_per_head(span, top_bases(score_BGN, room));
}

}  // namespace

Tensor top_bases(const Tensor& score_BGN, int64_t count) {
  return std::get<0>(std::get<1>(at::topk(score_BGN, count, -1)).sort(-1));
}

Entries snapkv(const ClosedSpan& span, int64_t room) {
  const int64_t bases = span.num_bases(), observed = std::min(kObserved, bases);
  const Tensor last = span.q.narrow(2, bases - observed, observed).to(compute_options(span.q));
  const Tensor queries = last.unflatten(1, {span.k.size(1), -1});  // [B, G, H/G, Q, E]
  const Tensor scores = scores_of(queries, span.k.unsqueeze(2));
  const auto on_device = at::TensorOptions().dtype(at::kBool).device(span.k.device());
  const Tensor later = at::ones({observed, bases}, on_device).triu(bases - observed + 1);
  const Tensor seen = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
  const Tensor votes = at::softmax(seen, -1).sum({2, 3});  // [B, G, n]
  // Padding never wins: votes are not negative, and a pooling window holds at least its own base.
  return best(span, at::max_pool1d(votes, {kNeighbourhood}, {1}, {kNeighbourhood / 2}), room);
}

Entries expected_attention(const ClosedSpan& span, int64_t room) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(span.k.size(3)));
  const int64_t groups = span.k.size(1);
  // Each query head has a distribution of its own: the references of one head stand one behind the other.
  const Tensor queries =
      future_queries(span).unflatten(2, {span.q.size(1) / groups, -1}) * scale;  // [B, G, H/G, n, E]
  const Tensor keys = span.k.to(queries.scalar_type()).unsqueeze(2);             // [B, G, 1, n, E]
  const Tensor mean = queries.mean(3, /*keepdim=*/true), centred = queries - mean;
  const Tensor along = at::matmul(mean, keys.transpose(-1, -2)).squeeze(3);  // [B, G, H/G, n]
  const Tensor covariance =
      at::matmul(centred.transpose(-1, -2), centred) / static_cast<double>(queries.size(3));
  const Tensor spread = (at::matmul(keys, covariance) * keys).sum(-1);
  const Tensor length = span.v.to(queries.scalar_type()).norm(2, -1);
  return best(span, at::logsumexp(along + spread / 2, 2) + length.log(), room);
}

Entries heavy(const ClosedSpan& span, int64_t room) {
  return best(span, at::softmax(scores_of(future_queries(span), span.k), -1).sum(2), room);
}

}  // namespace focus::compress
