#include "focus/report/gates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/core/error.h"
#include "focus/metrics/summary.h"
#include "text.h"

namespace focus::report {
namespace {

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// One bound on one figure.
GateResult bound(const std::string& where, const std::string& method, const char* what, double value,
                 double limit, bool at_most) {
  if (std::isnan(value))
    fail<ConfigError>(where, "the gate on ", what, " of '", method,
                      "' cannot be answered: the run has no such figure");
  const bool passed = at_most ? value <= limit : value >= limit;
  return {passed, concat(where, passed ? "passed: " : "FAILED: ", what, " of ", method, " is ", exact(value),
                         at_most ? ", at most " : ", at least ", exact(limit))};
}

GateResult no_worse(const std::string& where, const MethodSummary& own, const RunSummary& run,
                    const RunSummary& baseline, const std::string& path) {
  const MethodSummary* other = baseline.find(own.name);
  if (other == nullptr)
    fail<ConfigError>(where, "--baseline: '", path, "' has no method '", own.name, "'; set --gate-method");
  const auto digest = [](const RunSummary& r) {
    const auto found = r.provenance.find("fasta_digest");
    return found == r.provenance.end() ? std::string() : found->second;
  };
  if (run.segments != baseline.segments || run.length != baseline.length || digest(run) != digest(baseline))
    fail<ConfigError>(where, "--baseline: '", path,
                      "' measured other segments: a paired comparison needs the same fasta, regions, "
                      "segments, length and seed");
  std::vector<metrics::Total> differences;
  for (std::size_t s = 0; s < own.segment_kl.size(); ++s) {
    const double difference = own.segment_kl[s] - other->segment_kl[s];
    if (!std::isnan(difference)) differences.push_back({difference, 1});
  }
  const metrics::Interval interval = metrics::bootstrap_mean(differences);
  if (std::isnan(interval.low))
    fail<ConfigError>(where, "--baseline: ", differences.size(),
                      " segment(s) give no interval of the difference; measure two or more");
  metrics::Total mean;
  for (const metrics::Total& difference : differences) mean.add(difference);
  const bool passed = interval.low <= 0;
  return {passed, concat(where, passed ? "passed: " : "FAILED: ", "kl of ", own.name,
                         " less the baseline's is ", exact(mean.mean()), " (", exact(interval.low), " .. ",
                         exact(interval.high), ")", passed ? ", not above 0" : ", above 0")};
}

}  // namespace

std::string gated_method(const std::vector<std::string>& methods, const std::vector<std::string>& trained) {
  const auto found =
      std::find_if(methods.begin(), methods.end(), [&](const auto& name) { return holds(trained, name); });
  return found == methods.end() ? "fitted" : *found;
}

void require_answerable(const Gates& gates, const std::vector<std::string>& methods,
                        const std::string& method) {
  if (!gates.any()) {
    if (!gates.method.empty()) fail<ConfigError>("--gate-method has no effect without a gate; remove it");
    return;
  }
  if (!holds(methods, method))
    fail<ConfigError>("--gate-method: '", method,
                      "' is not among the methods that are measured; add it to "
                      "methods, or name another");
  if ((gates.min_r || gates.min_recall) && !holds(methods, "state_only"))
    fail<ConfigError>(
        gates.min_r ? "--min-r" : "--min-recall",
        " cannot be answered without the method 'state_only', with which it compares; add it to "
        "methods");
}

std::vector<GateResult> check_gates(const Gates& gates, const RunSummary& run, const std::string& method,
                                    const std::optional<RunSummary>& baseline, const std::string& where) {
  std::vector<GateResult> out;
  if (!gates.any()) return out;
  if (!run.crosses_boundary)
    fail<ConfigError>(where, "no gate can be answered: segments of ", run.length,
                      " bases fit into one window of ", run.window,
                      ", so nothing was compressed; use a larger length");
  const MethodSummary* own = run.find(method);
  FOCUS_CHECK(own != nullptr, "gates on '", method, "', which was not measured");
  const auto mean = [&](const char* measure) { return own->measures.at(measure).mean; };
  if (gates.max_kl) out.push_back(bound(where, method, "kl", mean("kl"), *gates.max_kl, true));
  if (gates.min_r) out.push_back(bound(where, method, "R", own->recovered, *gates.min_r, false));
  if (gates.min_top1)
    out.push_back(bound(where, method, "top1_agreement", mean("top1_agreement"), *gates.min_top1, false));
  if (gates.min_recall) {
    if (run.copied_positions == 0)
      fail<ConfigError>(
          where,
          "--min-recall cannot be answered: no 32 letters of a segment occur again behind a window; "
          "use longer segments, or plant copies (planted.size)");
    out.push_back(bound(where, method, "recall", own->recall, *gates.min_recall, false));
  }
  if (gates.min_memory_drop) {
    const auto bytes = [](const MethodSummary& m) {
      return static_cast<double>(m.kept_bytes + m.open_bytes + m.far_bytes);
    };
    const MethodSummary* full = run.find("full");
    const double drop = full != nullptr && bytes(*full) > 0 ? 1 - bytes(*own) / bytes(*full)
                                                            : std::numeric_limits<double>::quiet_NaN();
    out.push_back(bound(where, method, "memory drop", drop, *gates.min_memory_drop, false));
  }
  if (gates.max_perplexity_rise)
    out.push_back(bound(where, method, "perplexity rise", std::expm1(mean("delta_cross_entropy")),
                        *gates.max_perplexity_rise, true));
  if (baseline) out.push_back(no_worse(where, *own, run, *baseline, gates.baseline));
  return out;
}

}  // namespace focus::report
