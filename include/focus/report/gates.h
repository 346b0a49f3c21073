// Bounds that a run's figures must keep, for pipelines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "focus/report/run_summary.h"

namespace focus::report {

/// Each bound is on the mean over the run's main scope.
struct Gates {
  std::optional<double> max_kl;                       // nats
  std::optional<double> min_r, min_top1, min_recall;  // shares
  std::optional<double> min_memory_drop;              // a share: of full memory's bytes, those not held
  std::optional<double> max_perplexity_rise;          // a share of full memory's perplexity
  std::string method;                                 // empty: gated_method()
  std::string baseline;                               // folder of a fidelity run; empty: none
  bool any() const {
    return max_kl || min_r || min_top1 || min_recall || min_memory_drop || max_perplexity_rise ||
           !baseline.empty();
  }
};

struct GateResult {
  bool passed = false;
  std::string text;  // one line
};

/// The method that gates judge unless they name one: the first trained one among `methods`, else 'fitted'.
/// `trained`: the names of trained methods.
std::string gated_method(const std::vector<std::string>& methods, const std::vector<std::string>& trained);

/// Before the work. ConfigError: a gate that a run of these methods cannot answer.
void require_answerable(const Gates& gates, const std::vector<std::string>& methods,
                        const std::string& method);

/// A result per gate. The baseline's gate compares the mean KL of both segment by segment: the run has failed
/// where the 95% interval of the paired difference lies above 0. `where` begins each line. ConfigError: the
/// figures cannot answer a gate (no boundary was crossed, or the baseline measured other segments).
std::vector<GateResult> check_gates(const Gates& gates, const RunSummary& run, const std::string& method,
                                    const std::optional<RunSummary>& baseline, const std::string& where = "");

}  // namespace focus::report
