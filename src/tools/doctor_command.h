// focus-model doctor.
#pragma once

#include <string>
#include <vector>

#include "cli/common.h"

namespace focus::tools {

struct DoctorCommand {
  std::vector<std::string> require;
  std::string output = "-";
  int64_t threads = -1;
  bool json = false;
};

CLI::App* add_doctor(CLI::App& app, DoctorCommand& command);
/// After the report: CheckFailed when a self-check failed, DeviceError when something required is missing.
void run_doctor(const DoctorCommand& command);

}  // namespace focus::tools
