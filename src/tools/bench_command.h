// focus-model bench.
#pragma once

#include <string>

#include "cli/common.h"
#include "focus/weights/load_model.h"

namespace focus::tools {

struct BenchCommand {
  cli::CommonOptions common;
  std::string model_config, checkpoint;
  int64_t prefill = 1024, chunk = 0, decode = 16, repeats = 2;
  weights::Fp8 fp8 = weights::Fp8::emulate;
};

CLI::App* add_bench(CLI::App& app, BenchCommand& command);
/// Times a model on this machine and says how much of what the machine can do it uses.
void run_bench(const BenchCommand& command);

}  // namespace focus::tools
