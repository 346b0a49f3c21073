// Subcommands that live in files of their own. Each adds itself to its program and runs when it is asked for;
// `command_line` is recorded in what it writes.
#pragma once

#include <string>

#include "common.h"

namespace focus::cli {

inline constexpr const char* kAllowTruncatedHelp =
    "read what there is of a BGZF file that was cut short between two blocks, with a warning";

/// focus-train pack. ConfigError too when options of training stand before it: they would have no effect.
void add_pack(CLI::App& app, const std::string& command_line);
/// focus-eval calibrate.
void add_calibrate(CLI::App& app, const std::string& command_line);
/// focus-eval sweep.
void add_sweep(CLI::App& app, const std::string& command_line);
/// focus-eval report.
void add_report(CLI::App& app, const std::string& command_line);
/// focus-infer score.
void add_score(CLI::App& app, const std::string& command_line);

}  // namespace focus::cli
