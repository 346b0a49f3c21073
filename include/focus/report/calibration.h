// What a calibration found of each attention block, the memory it chose there, and what these choices keep
// together: the result and its files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "focus/metrics/summary.h"

namespace focus::report {

/// How one way to remember compares with full memory, over the positions behind the first boundary.
struct MemoryFigures {
  double kl = 0;  // nats
  metrics::Interval kl_interval;
  metrics::Recovered recovered;  // of the loss of forgetting the same blocks
};

/// Directions that the keys of a head fill, by the eigenvalues of their covariance; means over the heads.
struct KeyRank {
  double participation = 0;  // (sum of the eigenvalues)^2 / sum of their squares
  double for_90 = 0;         // directions with 90 % of the variance
  double for_99 = 0;
};

struct BlockMemory {
  std::string name, description;
  std::string refused;  // why no plan may choose it; empty: it may
  bool chosen = false;
  MemoryFigures figures;                                  // in this block alone, all others full
  int64_t kept_bytes = 0, open_bytes = 0, far_bytes = 0;  // planned, of this block alone
};

struct BlockCalibration {
  int64_t block = 0;
  double explained = 0;   // share of score variance that tables predict from letters; NaN: no tables
  double residual = 0;    // root mean square of what they leave of a score, nats; NaN: no tables
  KeyRank before, after;  // rotation
  MemoryFigures forgetting;
  std::vector<BlockMemory> memories;
};

/// The plan on one set of segments, beside forgetting in all blocks.
struct PlanFigures {
  int64_t segments = 0;
  MemoryFigures plan, state_only;
};

struct CalibrationResult {
  int64_t window = 0, kmer = 0;  // bases
  int64_t length = 0;            // bases per segment
  int64_t at_length = 0;         // bases that the bytes are planned for
  double min_r = 0;
  int64_t max_bytes = 0;  // 0: any
  std::vector<BlockCalibration> blocks;
  double predicted = 0;                                   // R if the losses of blocks added up
  PlanFigures choosing, judging;                          // on the segments that chose, and on others
  int64_t kept_bytes = 0, open_bytes = 0, far_bytes = 0;  // of the plan, all blocks
  std::map<std::string, std::string> provenance;
  std::string config_json;  // resolved configuration
  std::string memory_json;  // the plan as settings
};

/// For a terminal: a row per block, a row per block and memory, and the plan.
std::string calibration_table(const CalibrationResult& result);

/// Writes summary.json (all of it), summary.tsv (a row per block and memory), blocks.tsv (a row per block),
/// report.html (the same tables as one page) and memory.json (the plan as settings) into `folder`, which is
/// there. DataError.
void write_calibration_report(const CalibrationResult& result, const std::filesystem::path& folder);

}  // namespace focus::report
