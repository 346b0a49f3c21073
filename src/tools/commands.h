// The subcommands of focus-model. Each adds itself to the program and runs when it is asked for.
#pragma once

#include <string>

#include "cli/common.h"

namespace focus::tools {

void add_bench(CLI::App& app);
void add_convert(CLI::App& app);
/// After the report: CheckFailed when a self-check failed, DeviceError when something required is missing.
void add_doctor(CLI::App& app);
void add_inspect(CLI::App& app);
void add_plan(CLI::App& app);
void add_random(CLI::App& app);
/// CheckFailed, after the table is written, when the loss is not the expected one. `command_line` is recorded
/// in the table.
void add_selftest(CLI::App& app, const std::string& command_line);

}  // namespace focus::tools
