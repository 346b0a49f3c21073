// Whether fitted entries are worth keeping. Legend: B batch, G key/value heads, n bases of the span, m
// entries.
#pragma once

#include <ATen/ATen.h>

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"
#include "focus/compress/plan/config.h"

namespace focus::compress {

/// Switches off, in each head, the entries `fits` of a span that serve queries worse than nothing in their
/// place would. The judges are queries of the span that the fit did not see (with a reference_stride of one,
/// that it saw), at uneven distances, lest all of them stand at one place of a repeated unit; turned one span
/// ahead: each reads its own span up to itself, as an open window, and as the past kCopies spans like this
/// one, once exactly, once by its entries, once not at all. In a tandem repeat the open window alone answers
/// nearly right, and entries, which are means over many different bases, drown the answer in their mass.
/// `stands_for_BGN`: bases that the entries stand for, bool, [B, G, n] or broadcast to it; undefined = all.
/// `made_of_BGM`: the base whose key each entry has, int64, -1 of an entry with a key of its own, undefined
/// where all are such: a judge leaves entries out that are bases near it, as it does the bases. An entry that
/// is switched off has a beta of kSwitchedOff. No gradient passes through the decision.
void check_entries(const ClosedSpan& span, const at::Tensor& stands_for_BGN, const at::Tensor& made_of_BGM,
                   const FittedUnitConfig& config, Entries& fits);

/// Log-mass of an entry that counts for nothing; finite, so that sums of nothing else are.
constexpr double kSwitchedOff = -1e4;
/// Entries are read beside those of windows before and after them, whose errors add up where a sequence
/// repeats itself.
constexpr int64_t kCopies = 8;

}  // namespace focus::compress
