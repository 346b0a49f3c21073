// What the Focus units share: where entries of k-mers stand and where they come from. Legend: B batch, m
// k-mers, C channels.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"
#include "focus/compress/plan/config.h"

namespace focus::compress {

/// [m] fp64 rotary positions of the k-mers' entries.
at::Tensor anchor_positions(const ClosedSpan& span, Anchor anchor);
/// Of up to `entries_per_kmer` entries of each k-mer, no more than it has bases.
std::vector<EntryOrigin> kmer_origins(const ClosedSpan& span, int64_t entries_per_kmer);
/// [B, m, C] -> [B, heads, m, C / heads].
inline at::Tensor to_heads(const at::Tensor& x_BMC, int64_t heads) {
  return x_BMC.unflatten(-1, {heads, -1}).transpose(1, 2);
}

}  // namespace focus::compress
