// focus-model selftest.
#pragma once

#include <optional>
#include <string>

#include "cli/common.h"
#include "focus/data/sequence_list.h"
#include "focus/weights/load_model.h"

namespace focus::tools {

struct SelftestCommand {
  cli::CommonOptions common;
  std::string model_config, checkpoint, sequences, expect, expectations, output = "-";
  data::SequenceFormat format = data::SequenceFormat::automatic;
  std::optional<double> loss, tolerance;
  int64_t chunk = 1024;
  weights::Fp8 fp8 = weights::Fp8::emulate;
};

CLI::App* add_selftest(CLI::App& app, SelftestCommand& command);
/// CheckFailed, after the table is written, when the loss is not the expected one. `command_line` is recorded in the output.
void run_selftest(const SelftestCommand& command, const std::string& command_line);

}  // namespace focus::tools
