// How many bytes a rival may hold: as many as Focus.
#pragma once

#include <cstdint>

#include "focus/compress/plan/config.h"
#include "focus/compress/plan/plan.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// The byte budget of a rival: after each closed window it may hold as many bytes as Focus does, at a layer
/// of average settings.
struct Budget {
  WindowPlan plan;
  int64_t kmer_bytes = 0;  // of one k-mer's entries
  int64_t raw_bytes = 0;   // of what Focus keeps raw besides the open window: its tail and sinks
  /// Bytes that may be held for each sequence after window `window` (counted from 0) has closed, and entries
  /// of `entry_bytes` each.
  int64_t bytes_after(int64_t window) const { return plan.kmers_before(window + 1) * kmer_bytes + raw_bytes; }
  int64_t entries_after(int64_t window, int64_t entry_bytes) const {
    return bytes_after(window) / entry_bytes;
  }
};

/// What rivals of Focus under `config` may hold.
Budget budget_of(const model::Backbone& backbone, const MemoryConfig& config);
/// Bytes of one Focus entry at one attention layer for batch 1: the unit of equal-byte budgets.
int64_t focus_entry_bytes(const model::Backbone& backbone, const MemoryConfig& config);

}  // namespace focus::compress
