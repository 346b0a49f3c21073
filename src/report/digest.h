// All statistics of a fidelity run, computed once and shared by every file of the report.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "focus/metrics/summary.h"
#include "focus/report/fidelity_result.h"

namespace focus::report {

// The measures of a run and one derived from two methods.
inline constexpr int kDeltaCrossEntropy = kNumMeasures;
inline constexpr int kNumColumns = kNumMeasures + 1;
inline constexpr auto kColumnNames = [] {
  std::array<const char*, kNumColumns> names{};
  for (std::size_t m = 0; m < kMeasureNames.size(); ++m) names[m] = kMeasureNames[m];
  names[kDeltaCrossEntropy] = "delta_cross_entropy";
  return names;
}();
constexpr int column(Measure measure) { return static_cast<int>(measure); }

enum class Scope : int { all, after_boundary, repeat_rich, ordinary };
inline constexpr int kNumScopes = 4;
inline constexpr std::array<const char*, kNumScopes> kScopeNames = {"all", "after_boundary", "repeat_rich",
                                                                    "ordinary"};

struct ColumnStatistics {
  metrics::Summary summary;
  metrics::Interval interval;  // of the mean
};

struct ScopeStatistics {
  std::array<ColumnStatistics, kNumColumns> columns;
  metrics::Recovered recovered;  // NaN without a state_only method
};

struct MethodDigest {
  const MethodResult* method = nullptr;
  std::array<ScopeStatistics, kNumScopes> scopes;  // only those in ReportDigest::scopes
  std::array<std::vector<metrics::Bin>, kNumColumns> by_position, by_offset;
  std::vector<double> segment_kl;  // mean over the positions of the main scope; NaN where there is none
  std::vector<double> segment_cross_entropy;  // likewise
  metrics::Recovered recall;  // ReportDigest::copied_positions; NaN without full and state_only
};

struct ReportDigest {
  const FidelityResult* result = nullptr;
  std::vector<MethodDigest> methods;  // as in the result
  std::vector<Scope> scopes;          // present in this run
  Scope main_scope = Scope::all;      // after_boundary when a boundary is crossed
  bool crosses_boundary = false;
  int full = -1, state_only = -1, noise_floor = -1;  // places of these methods, -1: not in the run
  int64_t repeat_rich_segments = 0;
  int64_t copied_positions = 0;  // Segment::copied

  const ScopeStatistics& main(std::size_t method) const {
    return methods[method].scopes[static_cast<std::size_t>(main_scope)];
  }
};

ReportDigest digest_result(const FidelityResult& result);

}  // namespace focus::report
