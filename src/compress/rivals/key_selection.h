// Rivals that keep raw keys and values of the bases they judge most important, chosen anew for each window
// and key/value head: `room` of them. Legend: B batch, G key/value heads, n bases of the span.
#pragma once

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"

namespace focus::compress {

constexpr int64_t kObserved = 64, kNeighbourhood = 7;

/// By the attention that the span's last kObserved queries pay to a base, the largest of kNeighbourhood bases
/// (SnapKV, arXiv 2404.14469). Unlike there the voting queries' own keys are not kept for their own sake: at
/// long windows and large k they alone would exceed the budget.
Entries snapkv(const ClosedSpan& span, int64_t room);
/// By the attention that a base can expect from queries drawn from a normal distribution with the mean and
/// covariance of the references, times the length of its value (arXiv 2510.00636):
/// E exp(q.k/sqrt(E)) = exp(mu.k/sqrt(E) + k'Sk/(2E)).
Entries expected_attention(const ClosedSpan& span, int64_t room);
/// By the share of attention that the references pay to a base.
Entries heavy(const ClosedSpan& span, int64_t room);

/// Indices [B, G, count] of the highest scores, in the order of the bases.
at::Tensor top_bases(const at::Tensor& score_BGN, int64_t count);

}  // namespace focus::compress
