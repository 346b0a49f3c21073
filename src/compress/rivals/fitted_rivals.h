// Rivals whose entries are fitted in closed form: no more than `room` of a window. Fits of raw bases are
// checked, and all but those of multires leave the references' own out, as the fitted unit's do by default.
// Legend: B batch, G key/value heads, R reference queries, n bases of the span, E head dimension.
#pragma once

#include <vector>

#include "focus/compress/rivals/rivals.h"

namespace focus::compress {

constexpr int64_t kKmersPerEntry = 2;
constexpr int64_t kFiner = 4;  // entries of the newest window for each of Focus's

/// A control: what a single number per window and head buys. Zero key, the window's mean log-mass as beta,
/// its mass-weighted mean value: less than the budget where a window has more than one k-mer.
Entries window_mass(const ClosedSpan& span, int64_t room);
/// The bases that get most attention, exactly, and fitted entries for everything else: one for every
/// kKmersPerEntry k-mers. The choice is made per key/value head. Exact entries have beta 0 and take the bytes
/// of a fitted one.
Entries heavy_fitted(const ClosedSpan& span, int64_t room);
/// Fitted entries of k-mers whose boundaries are placed by surprise: each carries an equal share of it.
/// Surprise is per base and sequence: here the attention that the references pay to the base in this layer,
/// over all heads.
Entries adaptive(const ClosedSpan& span, int64_t room);
/// The same with another surprise [B, n]. Half of the surprise is spread evenly over the window, which bounds
/// a k-mer to twice its even length.
Entries fit_equal_shares(const ClosedSpan& span, const at::Tensor& surprise, int64_t room);
/// Multi-resolution: fitted entries of few bases for the newest window, merged pair by pair as they grow
/// older, so that an entry's extent grows with its distance and the whole takes the budget. An entry is never
/// fitted to raw bases again: the pair's log-mass, measured by the references of the closing window, is
/// fitted by one entry, whose value is the pair's mean by mass. Extents are the distances between origins,
/// whose index is the first base.
void multires(const ClosedSpan& span, const Budget& budget, EntryStore& retained);

/// `count` spans, one after the other, that cover the items once, none of them empty, each with as near as
/// can be 1/count of the weight.
std::vector<Span> equal_shares(const std::vector<double>& weights, int64_t count);

}  // namespace focus::compress
