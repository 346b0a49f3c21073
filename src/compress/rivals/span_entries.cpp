#include "span_entries.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/ops/host_copy.h"

namespace focus::compress {

using at::Tensor;

at::TensorOptions compute_options(const Tensor& like) {
  return like.options().dtype(like.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

Entries raw_entries(const ClosedSpan& span) {
  return raw_entries(span.k, span.v, 0, span.num_bases(), span.window, span.first_base);
}

Entries raw_entries(const ClosedSpan& span, const std::vector<int64_t>& bases) {
  const Tensor index = ops::from_host(bases, span.k.device());
  Entries out;
  out.k = span.k.index_select(2, index);
  out.v = span.v.index_select(2, index);
  for (const int64_t base : bases) out.origin.push_back({span.window, span.first_base + base});
  return out;
}

Entries raw_entries_per_head(const ClosedSpan& span, const Tensor& index_BGS) {
  const Tensor index = index_BGS.unsqueeze(-1).expand({-1, -1, -1, span.k.size(3)});
  Entries out;
  out.k = span.k.gather(2, index);
  out.v = span.v.gather(2, index);
  out.origin = window_origins(span, index_BGS.size(2));
  return out;
}

std::vector<EntryOrigin> window_origins(const ClosedSpan& span, int64_t count) {
  return std::vector<EntryOrigin>(static_cast<std::size_t>(count), EntryOrigin{span.window, -1});
}

int64_t held_by(const ClosedSpan& span, const Budget& budget, const EntryStore& retained, bool with_beta) {
  // The budget is that of one sequence, whatever the batch.
  return budget.entries_after(span.window, retained.format().entry_bytes(span.k.size(1), span.k.size(3),
                                                                         span.k.scalar_type(), with_beta));
}

int64_t room_for(const ClosedSpan& span, const Budget& budget, const EntryStore& retained, bool with_beta) {
  return std::max<int64_t>(held_by(span, budget, retained, with_beta) - retained.size(), 0);
}

References references(const ClosedSpan& span, const Tensor& bases) {
  const Tensor queries = span.q.index_select(2, bases).to(compute_options(span.q));
  const Tensor shift = at::full({bases.size(0)}, span.extent, bases.options());
  const int64_t kv_heads = span.k.size(1);
  return {span.attention.rotate(queries, shift).unflatten(1, {kv_heads, -1}).flatten(2, 3),
          bases.repeat({span.q.size(1) / kv_heads})};
}

Tensor own_queries(const ClosedSpan& span, const Tensor& bases) {
  const Tensor queries = span.q.index_select(2, bases).to(compute_options(span.q));
  return queries.unflatten(1, {span.k.size(1), -1}).flatten(2, 3);
}

Tensor every_base(const ClosedSpan& span, int64_t stride) {
  return at::arange(0, span.num_bases(), stride,
                    at::TensorOptions().dtype(at::kLong).device(span.q.device()));
}

Tensor future_queries(const ClosedSpan& span, int64_t stride) {
  return references(span, every_base(span, stride)).q;
}

Tensor near_own(const References& references, int64_t num_bases, int64_t leave_out) {
  const Tensor base = at::arange(num_bases, references.own.options());
  return (base - references.own.unsqueeze(1)).abs().lt(std::min(leave_out, num_bases / 2));
}

Tensor measured(const Tensor& part, const Tensor& near) {
  const Tensor rest = part.logical_and(near.logical_not());
  return at::where(rest.any(-1, /*keepdim=*/true), rest, part);
}

Tensor log_unmeasured(const Tensor& part, const Tensor& used, at::ScalarType type) {
  const auto size = [&](const Tensor& bases) { return bases.sum(-1).clamp_min(1).to(type); };
  return (size(part) / size(used)).log();
}

Tensor log_mass_of(const Tensor& scores, const Tensor& part, const Tensor& near) {
  const Tensor used = measured(part, near);
  return at::logsumexp(scores.masked_fill(used.logical_not(), -std::numeric_limits<double>::infinity()), -1) +
         log_unmeasured(part, used, scores.scalar_type());
}

Tensor log_sum(const Tensor& scores, const Tensor& softmax) {
  return scores.amax(-1, /*keepdim=*/true) - softmax.amax(-1, /*keepdim=*/true).log();
}

Tensor solved(const Tensor& a, const Tensor& b) {
  return std::get<0>(at::linalg_solve_ex(a, b, /*left=*/true, /*check_errors=*/false));
}

Tensor scores_of(const Tensor& queries_BGRE, const Tensor& k_BGNE) {
  return at::matmul(queries_BGRE, k_BGNE.to(queries_BGRE.scalar_type()).transpose(-1, -2)) /
         std::sqrt(static_cast<double>(k_BGNE.size(-1)));
}

}  // namespace focus::compress
