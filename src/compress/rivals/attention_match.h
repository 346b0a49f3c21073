// Attention matching (arXiv 2602.16284): the strongest closed form among the rivals.
#pragma once

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"

namespace focus::compress {

/// Per window and key/value head, in fp32 and on reference queries q:
///   keys    a subset S of the window's own, chosen greedily (orthogonal matching pursuit) so that weighted
///           they reproduce the mass
///   beta    log w with non-negative, bounded least squares: sum_{j in S} w_j exp(q.k_j/sqrt(E)) ~
///           sum_t exp(q.k_t/sqrt(E)), relative to the latter
///   values  ridge least squares: softmax(q.K_S/sqrt(E) + beta) V_S ~ the window's attention output, around
///           the bases' own values
/// Entries are checked on queries held out, as fitted ones are. Makes `room` entries; with room for every
/// base they are kept as they are.
Entries attention_match(const ClosedSpan& span, int64_t room);

/// argmin_{0 <= w <= upper} w'Gw/2 - b'w for positive definite G: gram [.., s, s], rhs [.., s]. In fp64 on
/// the CPU; returned like `rhs`.
at::Tensor bounded_least_squares(const at::Tensor& gram, const at::Tensor& rhs, double upper);

}  // namespace focus::compress
