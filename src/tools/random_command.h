// focus-model random.
#pragma once

#include <string>

#include "cli/common.h"

namespace focus::tools {

struct RandomCommand {
  std::string model_config, output, dtype = "bf16";
  int64_t seed = 0;
  bool force = false, quiet = false;
};

CLI::App* add_random(CLI::App& app, RandomCommand& command);
void run_random(const RandomCommand& command);

}  // namespace focus::tools
