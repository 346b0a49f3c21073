// focus-train pack.
#pragma once

#include <string>
#include <vector>

#include "common.h"

namespace focus::cli {

struct PackCommand {
  std::vector<std::string> fasta, jsonl, regions, exclude;
  std::string output;
  bool force = false, quiet = false;
};

CLI::App* add_pack(CLI::App& app, PackCommand& command);
/// ConfigError too when options of training stand before the subcommand: they would have no effect.
void run_pack(const CLI::App& app, const PackCommand& command, const std::string& command_line);

}  // namespace focus::cli
