// What retention policies share: taking bases out of a closing span, the room the byte budget leaves, and the
// queries they are judged by. Legend: B batch, H query heads, G key/value heads, n bases of the span, R
// reference queries, S kept entries, E head dimension.
#pragma once

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/storage.h"
#include "focus/compress/plan/config.h"
#include "focus/compress/rivals/budget.h"

namespace focus::compress {

/// fp32, or fp64 where the model is: what policies compute in.
at::TensorOptions compute_options(const at::Tensor& like);

/// All raw bases of the span as entries.
Entries raw_entries(const ClosedSpan& span);
/// The raw bases of these indices, the same for every head.
Entries raw_entries(const ClosedSpan& span, const std::vector<int64_t>& bases);
/// Raw bases chosen head by head, `index_BGS` in the span. Their origin names the window only, with index -1.
Entries raw_entries_per_head(const ClosedSpan& span, const at::Tensor& index_BGS);
/// Origins of entries that stand for more than one base, or for another one in every head.
std::vector<EntryOrigin> window_origins(const ClosedSpan& span, int64_t count);

/// Entries that the budget allows after this span's window, with or without a beta, in the store's format.
int64_t held_by(const ClosedSpan& span, const Budget& budget, const EntryStore& retained, bool with_beta);
/// Of these the ones that may still be added.
int64_t room_for(const ClosedSpan& span, const Budget& budget, const EntryStore& retained, bool with_beta);

/// Stand-ins for the queries of the bases to come: some of the span's own (neighbours ask alike), turned by
/// the span's extent (rotations add up), so that they stand where the next span's will. All queries that read
/// a key/value head are its references.
struct References {
  at::Tensor q;    // [B, G, R, E]
  at::Tensor own;  // [R] the base of the span that each comes from
};
/// Those of these bases [r] of the span.
References references(const ClosedSpan& span, const at::Tensor& bases);
/// The same queries where they stand, not turned: [B, G, R, E].
at::Tensor own_queries(const ClosedSpan& span, const at::Tensor& bases);
/// Every stride-th base of the span from the first on.
at::Tensor every_base(const ClosedSpan& span, int64_t stride);
/// The references of every stride-th base, [B, G, R, E].
at::Tensor future_queries(const ClosedSpan& span, int64_t stride = FittedUnitConfig{}.reference_stride);
/// Score of a base that a reference leaves out: next to no weight, and finite where every reference leaves it
/// out.
constexpr double kLeftOut = -1e4;
/// Which bases of the span are nearer than `leave_out` to a reference's own: [R, n] bool. A reference comes
/// from the span itself, so it finds its own continuation there as no query to come will. In a span of few
/// bases the reach is shorter: each reference keeps some.
at::Tensor near_own(const References& references, int64_t num_bases, int64_t leave_out);
/// Of the bases of `part`, the ones a reference measures: those not near its own, or all of a part without
/// others. bool, broadcast; bases on the last axis.
at::Tensor measured(const at::Tensor& part, const at::Tensor& near);
/// What the log-mass of the bases that are measured lacks to that of their part: the others count like their
/// mean. Over the last axis.
at::Tensor log_unmeasured(const at::Tensor& part, const at::Tensor& used, at::ScalarType type);
/// Log-mass of a part's bases by the scores of those that are measured, for which the others count like the
/// mean; over the last axis. -inf of an empty part.
at::Tensor log_mass_of(const at::Tensor& scores, const at::Tensor& part, const at::Tensor& near);

/// log sum exp of scores whose softmax is known, over the last axis, which is kept: one pass over each.
at::Tensor log_sum(const at::Tensor& scores, const at::Tensor& softmax);

/// x of A x = b, for matrices that a ridge keeps regular: nothing is checked, since the host would have to
/// wait for it.
at::Tensor solved(const at::Tensor& a, const at::Tensor& b);

/// q.k/sqrt(E), [B, G, R, n]
at::Tensor scores_of(const at::Tensor& queries_BGRE, const at::Tensor& k_BGNE);

}  // namespace focus::compress
