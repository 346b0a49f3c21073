// focus-model convert.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/common.h"

namespace focus::tools {

struct ConvertCommand {
  std::string input, output, dtype = "keep";
  std::vector<std::string> drop;
  int64_t max_shard_bytes = 0;  // 0: not given
  bool dry_run = false, force = false, quiet = false;
};

CLI::App* add_convert(CLI::App& app, ConvertCommand& command);
void run_convert(const ConvertCommand& command);

}  // namespace focus::tools
