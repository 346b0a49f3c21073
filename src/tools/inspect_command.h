// focus-model inspect.
#pragma once

#include <string>

#include "cli/common.h"

namespace focus::tools {

struct InspectCommand {
  std::string file, filter, configs, output = "-";
  bool digest = false, json = false, all = false;
};

CLI::App* add_inspect(CLI::App& app, InspectCommand& command);
void run_inspect(const InspectCommand& command);

}  // namespace focus::tools
