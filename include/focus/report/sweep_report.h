// The collected figures of a sweep.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "focus/report/run_summary.h"

namespace focus::report {

struct SweepCell {
  std::string id;
  std::vector<std::string> values;  // of SweepResult::keys
  std::string folder;               // of its run, as seen from the report's folder
  std::string missing;              // why there is no `run`: one line
  std::optional<RunSummary> run;
  double train_seconds = 0;  // NaN: nothing was trained, or in several starts
};

struct SweepResult {
  std::string title = "Sweep";                    // the page's head
  std::vector<std::string> keys;                  // the settings of the grid
  std::vector<SweepCell> cells;                   // in the grid's order
  double scale = 1;                               // SweepConfig::scale
  std::map<std::string, std::string> provenance;  // version, command line
  std::string config_json;
};

/// What the figures leave open: cells without figures, methods without the runs that their figures need,
/// random weights, segments within one window. One line each.
std::vector<std::string> sweep_notes(const SweepResult& result);

/// Writes into `folder`, each file whole or not at all:
///   sweep.tsv   a row per cell and method: the grid's settings, figures over the main scope, bytes, times
///   last; of a cell without figures one row that says so. What sweep_notes() says are comment lines on top
///   sweep.json  the same, with provenance and configuration
///   sweep.html  the table, sortable, nothing loaded from elsewhere
/// DataError: it cannot be written.
void write_sweep_report(const SweepResult& result, const std::filesystem::path& folder);

}  // namespace focus::report
