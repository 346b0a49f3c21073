// All statistics of a fidelity run, computed once and shared by every file of the report.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "focus/metrics/summary.h"
#include "focus/report/fidelity_result.h"

namespace focus::report {

inline constexpr auto kColumnNames = [] {
  std::array<const char*, kNumColumns> names{};
  for (std::size_t m = 0; m < kMeasureNames.size(); ++m) names[m] = kMeasureNames[m];
  names[kDeltaCrossEntropy] = "delta_cross_entropy";
  return names;
}();
constexpr int column(Measure measure) { return static_cast<int>(measure); }

inline constexpr double kEffectiveRecall = 0.85;
/// Classes of fewer positions, or where even state_only loses less than this many nats, tell no recall.
inline constexpr int64_t kFewestCopied = 32;
inline constexpr double kLeastLoss = 0.05;

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

/// A class of positions of the main scope.
struct ClassStatistics {
  int64_t count = 0;
  double kl = 0, cross_entropy = 0, delta_cross_entropy = 0;  // means
  metrics::Interval kl_interval;
  metrics::Recovered recall;  // of delta_cross_entropy against state_only's
};

struct MethodDigest {
  const MethodResult* method = nullptr;
  std::array<ScopeStatistics, kNumScopes> scopes;  // only those in ReportDigest::scopes
  std::vector<double> segment_kl;  // mean over the positions of the main scope; NaN where there is none
  std::vector<double> segment_cross_entropy;                         // likewise
  std::array<std::vector<ClassStatistics>, kNumGroupings> by_class;  // empty: the run knows no classes
  /// Mean KL above that of the run's subject at the same positions; NaN without one.
  double kl_above_subject = 0;
  metrics::Interval kl_above_subject_interval;
  /// The largest distance up to which bases seen before, no nearer than a window, keep kEffectiveRecall of
  /// what full memory gains from them; 0: not even the nearest, NaN: none was seen, or nothing to compare
  /// with.
  double effective_length = 0;
  metrics::Recovered recall;  // ReportDigest::copied_positions; NaN without full and state_only
};

struct ReportDigest {
  const FidelityResult* result = nullptr;
  std::vector<MethodDigest> methods;  // as in the result
  std::vector<Scope> scopes;          // present in this run
  Scope main_scope = Scope::all;      // after_boundary when a boundary is crossed
  bool crosses_boundary = false;
  int full = -1, state_only = -1, noise_floor = -1,
      subject = -1;  // places of these methods, -1: not in the run
  int64_t repeat_rich_segments = 0;
  int64_t copied_positions = 0;  // Segment::copied
  bool random_weights = false;   // is_random() of full memory

  const ScopeStatistics& main(std::size_t method) const {
    return methods[method].scopes[static_cast<std::size_t>(main_scope)];
  }
};

/// What every output of such a run says.
inline constexpr std::string_view kRandomWeights =
    "RANDOM WEIGHTS: full memory predicts far worse than a fair draw of four letters, so the figures say "
    "nothing "
    "about a trained model";
inline constexpr std::string_view kOneWindow =
    "ONE WINDOW: no boundary is crossed and nothing is compressed; use longer segments";

/// Whether full memory's mean cross entropy, in nats, is that of random weights: far worse than a fair draw
/// of A, C, G and T. Told from the figures, as no checkpoint says so. NaN is none.
bool is_random(double cross_entropy);

ReportDigest digest_result(const FidelityResult& result);

}  // namespace focus::report
