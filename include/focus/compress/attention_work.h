// What attention with a memory costs, from the sizes that the memory plans to hold.
#pragma once

#include <cstdint>

#include "focus/compress/compressed_model.h"
#include "focus/compress/plan/config.h"
#include "focus/model/work.h"

namespace focus::compress {

/// Of one sequence, in one head of one attention layer.
struct KeysSeen {
  double pairs = 0;  // of a query and a key that it sees
  double read = 0;   // keys, over all calls of attention
};
/// The bases [begin, end) of a stream, in forward calls of `chunk` bases. `compressed` null: full memory.
/// Memories that close a window at its end and have the same settings in all layers; what is retained counts
/// as it lies when a window opens, and of far memory's lists that they are full and all different.
KeysSeen keys_seen(const CompressedModel* compressed, int64_t begin, int64_t end, int64_t chunk);

/// Bytes that far memory moves for these bases, in all attention layers together, at most: every list is
/// full, and nothing of it was held ready. Nothing without far memory.
struct FarTraffic {
  double stored = 0, fetched = 0;
};
FarTraffic far_traffic(const CompressedModel* compressed, int64_t begin, int64_t end);

/// What far memory's choice by keys computes for these bases, in all attention layers together: a score of
/// every past key, or entry, for the first query of each list. Nothing where letters or chance choose, which
/// the host does.
model::Operation choice_work(const CompressedModel* compressed, int64_t begin, int64_t end);

/// Closing `windows` windows of `bases` bases in all attention layers, the closed form alone: scores of the
/// reference queries, the regression and the check. Sums and scores are fp32.
model::Operation fit_work(const FittedUnitConfig& config, const model::BackboneShape& shape, int64_t layers,
                          double windows, int64_t bases, int64_t kmers);

}  // namespace focus::compress
