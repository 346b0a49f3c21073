// Settings of far memory: exact keys and values of closed windows, fetched k-mer by k-mer.
#pragma once

#include <cstdint>
#include <string>

#include "focus/compress/far/scorer.h"
#include "focus/config/fields.h"

namespace focus::compress {

enum class FarStoreType { model, bf16, int8, int4 };
enum class FarPlace { model, host, file };
enum class FarEvict { age, use };

struct FarConfig {
  int64_t kmers = 0;               // most that a query fetches; 0: no far memory
  int64_t refresh = 16;            // consecutive queries of a window that fetch the same ones
  int64_t gate = 0;                // votes from which on a fetched k-mer replaces all summaries; 0: never
  int64_t keep = 0;                // bases before the open window that can be fetched; 0: all
  FarEvict evict = FarEvict::age;  // which ones go beyond that
  FarStoreType store = FarStoreType::model;
  FarPlace place = FarPlace::model;
  std::string folder;  // of the file; empty: the system's for temporary files
  int64_t hot = 16;    // k-mers held ready beside the model, those fetched last
  FarScore score = FarScore::seeds;
  SeedVoteConfig seeds;
  int64_t rank = 16;  // of a sketch
  void visit(config::Fields& f);
  bool operator==(const FarConfig&) const = default;

  bool active() const { return kmers > 0; }
  bool evicts_by_use() const { return keep > 0 && evict == FarEvict::use; }
  /// Queries that fetch together with base `base`, and the past they may fetch from.
  FarTile tile(const WindowPlan& plan, int64_t base) const;
  /// The first k-mer that queries with a past up to `past_end` may still fetch, as far as age says.
  int64_t first_kept(const WindowPlan& plan, int64_t past_end) const;
};

}  // namespace focus::compress
