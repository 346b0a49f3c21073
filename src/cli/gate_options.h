// --max-kl and its like, for the commands that measure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common.h"
#include "focus/eval/fidelity.h"
#include "focus/report/gates.h"

namespace focus::cli {

void add_gates(CLI::App& app, report::Gates& gates);

/// The gates on runs, and what they compare with.
class GateKeeper {
 public:
  /// Reads the baseline. ConfigError, DataError.
  explicit GateKeeper(report::Gates gates);
  /// Before the work: ConfigError where a run of this configuration cannot answer.
  void require_answerable(const eval::FidelityConfig& config) const;
  /// Prints a line per gate. `where` begins each.
  void check(const eval::FidelityConfig& config, const report::RunSummary& run,
             const std::string& where = "");
  /// After all of them: CheckFailed where a gate was not kept.
  void finish() const;

 private:
  std::string method_of(const eval::FidelityConfig& config) const;
  report::Gates gates_;
  std::optional<report::RunSummary> baseline_;
  int num_failed_ = 0;
};

}  // namespace focus::cli
