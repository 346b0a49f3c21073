// Which memory each attention block needs: every memory in every block alone, beside what its keys are like,
// and from that a plan, the cheapest that keeps enough.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "focus/compress/focus/adapter.h"
#include "focus/config/fields.h"
#include "focus/data/sampler.h"
#include "focus/distributed/ranks.h"
#include "focus/eval/fidelity.h"
#include "focus/report/calibration.h"

namespace focus::eval {

/// What a plan has to do.
struct GoalConfig {
  double min_r = 0.9;
  int64_t max_bytes = 0;
  double max_bytes_per_base = 0;
  void visit(config::Fields& f);
};

/// The configuration of focus-eval calibrate.
struct CalibrateConfig {
  FidelityConfig run;  // model, sequences, machine; its methods and adapters are not used
  compress::MemoryConfig memory;
  data::SamplerConfig data;           // that tables are fitted to
  std::vector<std::string> memories;  // empty: all that apply
  double largest_residual = 2;
  int64_t at_length = 0;
  GoalConfig goal;
  void visit(config::Fields& f);
  /// Settings that contradict each other, are missing or have no effect; ConfigError.
  void validate() const;
};

/// The names in `memories`, or all that apply, state_only among them: `tables` where `data` has sources.
/// ConfigError: unknown or repeated names.
std::vector<std::string> calibrated_memories(const CalibrateConfig& config);

struct Calibration {
  report::CalibrationResult result;
  std::shared_ptr<compress::FocusAdapter> plan;  // with the tables of blocks that have them
  weights::LoadedModel loaded;
};

/// Draws twice `segments`. Half of them choose: the model reads each with full memory for the figures of
/// keys, then streams it with every memory in one block, all other blocks full, and with what the choice
/// among them gives, which moves up until it keeps what the goal asks for. The other half measures the plan.
///
/// Base memory is refused, measured but never chosen, in a block where tables leave a score uncertain by more
/// than `largest_residual`. Ranks share the sequences; the result is the same on all. Throws as
/// run_fidelity(); ConfigError too when nothing fits the goal's bytes.
Calibration run_calibrate(const CalibrateConfig& config, const std::string& device, c10::ScalarType dtype,
                          distributed::Ranks& ranks);

/// The report, and the plan as an adapter: adapter.safetensors.
void write_calibration(const Calibration& calibration, const std::filesystem::path& folder);

}  // namespace focus::eval
