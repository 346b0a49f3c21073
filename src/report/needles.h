// How many of the needles a method gave back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "focus/metrics/summary.h"
#include "focus/report/fidelity_result.h"

namespace focus::report {

/// Over the questions of all segments; intervals over segments. NaN where nothing was answered.
struct NeedleStatistics {
  int64_t count = 0;                          // questions
  double exact_match = 0, base_accuracy = 0;  // share of answers that are the value, and of their bases
  metrics::Interval exact_match_interval, base_accuracy_interval;
};

/// Of one depth, its place in FidelityResult::needle_depths, or of all.
NeedleStatistics needle_statistics(const FidelityResult& result, const MethodResult& method,
                                   std::optional<std::size_t> depth = {});

/// Whether the question chooses what the method reads of the segment: far memory is fetched by it. All others
/// have compressed the segment before they see a question.
bool looks_at_question(const MethodResult& method);

}  // namespace focus::report
