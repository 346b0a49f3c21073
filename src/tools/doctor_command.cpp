#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/table.h"
#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/processors.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/kernels/isa.h"
#include "focus/ops/device_memory.h"
#include "self_check.h"

namespace focus::tools {
namespace {

// What the system does not tell is left out or null.
using Facts = nlohmann::ordered_json;

struct DoctorCommand {
  std::vector<std::string> require;
  std::string output = "-";
  cli::CommonOptions common;
  bool json = false;
};

/// The text behind "key" and a colon in a file of such lines; empty when there is none.
std::string value_of(const std::filesystem::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

/// Flags of the first processor; they are there only where the system saves the registers too.
std::set<std::string> processor_flags() {
  std::istringstream text(value_of("/proc/cpuinfo", "flags"));
  std::set<std::string> out;
  for (std::string flag; text >> flag;) out.insert(flag);
  return out;
}

/// The first line, without the commit in brackets at its end.
std::string short_line(std::string text) {
  text.erase(std::min(text.find('\n'), text.size()));
  return text.substr(0, text.find(" (Git Hash"));
}

Facts torch_facts() {
  const std::string built = TORCH_VERSION, config = at::show_config(), key = "TORCH_VERSION=";
  const std::size_t found = config.find(key), begin = found + key.size();
  const std::string running = found == std::string::npos
                                  ? "unknown"
                                  : config.substr(begin, config.find_first_of(", \n", begin) - begin);
  Dl_info library{};
  ::dladdr(reinterpret_cast<const void*>(&at::show_config), &library);
  Facts out = {{"version_at_build", built}, {"version_running", running}};
  out["library"] = library.dli_fname != nullptr ? Facts(library.dli_fname) : Facts(nullptr);
  out["mkl"] = at::hasMKL() ? Facts(short_line(at::get_mkl_version())) : Facts(nullptr);
  out["onednn"] =
      at::globalContext().hasMKLDNN() ? Facts(short_line(at::get_mkldnn_version())) : Facts(nullptr);
  if (built != running) out["note"] = "built against another version than it runs with: build again";
  return out;
}

Facts processor_facts() {
  const std::set<std::string> flags = processor_flags();
  std::string sets;
  for (const char* flag :
       {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_tile", "amx_bf16"}) {
    if (flags.contains(flag)) sets += concat(sets.empty() ? "" : " ", flag);
  }
  Facts out = {{"model", value_of("/proc/cpuinfo", "model name")}, {"instruction_sets", sets}};
  const Processors processors = read_processors();
  const auto count = [](std::optional<int64_t> value) { return value ? Facts(*value) : Facts(nullptr); };
  out["cores_of_machine"] = processors.machine;
  out["cores_allowed"] = count(processors.allowed);
  out["cores_by_cgroup_quota"] = count(processors.quota);
  out["kernels_use"] = kernels::cpu_isa();
  out["bf16_products"] = kernels::cpu_multiplies_bf16();
  return out;
}

Facts thread_facts() {
  const Processors processors = read_processors();
  Facts out = {{"torch_threads", at::get_num_threads()},
               {"default_threads", processors.usable()},
               {"limited_by", processors.limited_by()}};
  for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "OMP_WAIT_POLICY",
                           "GOMP_SPINCOUNT", "OMP_PROC_BIND", "KMP_AFFINITY", "FOCUS_CPU_ISA"}) {
    if (const char* value = std::getenv(name)) out[name] = value;
  }
  return out;
}

Facts memory_facts() {
  const SystemMemory memory = read_system_memory();
  const auto bytes = [](std::optional<int64_t> value) { return value ? Facts(*value) : Facts(nullptr); };
  return {{"total_bytes", bytes(memory.total)},
          {"available_bytes", bytes(memory.available)},
          {"swap_bytes", bytes(memory.swap)},
          {"cgroup_limit_bytes", bytes(memory.limit)},
          {"cgroup_left_bytes", bytes(memory.left)}};
}

/// What the driver shows needs no CUDA in this build; whether LibTorch can use it is another question.
Facts cuda_facts() {
  namespace fs = std::filesystem;
  const bool built = ops::has_device_kernels(at::kCUDA);
  const fs::path driver = "/proc/driver/nvidia";
  const std::string version = value_of(driver / "version", "NVRM version");
  std::error_code ignored;
  Facts devices = Facts::array();
  for (const auto& entry : fs::directory_iterator(driver / "gpus", ignored))
    devices.push_back(value_of(entry.path() / "information", "Model"));
  int64_t usable = 0;
  if (built && c10::impl::hasDeviceGuardImpl(at::kCUDA))
    usable = c10::impl::getDeviceGuardImpl(at::kCUDA)->deviceCount();
  Facts out = {{"built_with_cuda", built}, {"usable_devices", usable}, {"devices", devices}};
  out["driver"] = version.empty() ? Facts(nullptr) : Facts(version);
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) out["CUDA_VISIBLE_DEVICES"] = visible;
  if (usable > 0) return out;
  out["note"] = version.empty() ? "no NVIDIA driver on this machine (no /proc/driver/nvidia/version)"
                : built ? "LibTorch can use no device; compare the driver with the CUDA version of LibTorch, "
                          "and look at CUDA_VISIBLE_DEVICES"
                        : "this build has no CUDA; build the preset cuda-release to use these devices";
  return out;
}

Facts check_facts(const std::vector<SelfCheck>& checks) {
  Facts out = Facts::array();
  for (const SelfCheck& check : checks) {
    Facts entry = {
        {"name", check.name}, {"passed", check.passed()}, {"error", check.error}, {"limit", check.limit}};
    if (!check.failure.empty()) entry["failure"] = check.failure;
    out.push_back(std::move(entry));
  }
  return out;
}

std::string value_text(const std::string& key, const Facts& value) {
  if (value.is_null() || (value.is_array() && value.empty())) return "none";
  if (value.is_number_integer() && key.ends_with("_bytes")) return format_bytes(value.get<int64_t>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string line(const std::string& key, const std::string& value) {
  std::string name = key.ends_with("_bytes") ? key.substr(0, key.size() - 6) : key;
  const bool variable = name.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") != std::string::npos;
  if (!variable) std::replace(name.begin(), name.end(), '_', ' ');
  return "  " + name + std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') + " " + value + "\n";
}

std::string check_line(const SelfCheck& check) {
  char figures[80];
  std::snprintf(figures, sizeof figures, "error %.1e, limit %.0e", check.error, check.limit);
  return concat("  ", check.passed() ? "ok    " : "FAILED", "  ", check.name, ": ",
                check.failure.empty() ? figures : check.failure, "\n");
}

std::string text_of(const Facts& report, const std::vector<SelfCheck>& checks) {
  std::string out;
  for (const auto& section : report.items()) {
    if (!section.value().is_object()) continue;
    out += section.key() + "\n";
    for (const auto& item : section.value().items())
      out += line(item.key(), value_text(item.key(), item.value()));
  }
  out += "checks\n";
  for (const SelfCheck& check : checks) out += check_line(check);
  return out;
}

bool available(const std::string& name, const Facts& report) {
  const std::set<std::string> flags = processor_flags();
  if (name == "cuda") return report["cuda"]["usable_devices"].get<int64_t>() > 0;
  if (name == "avx512") return flags.contains("avx512f");
  if (name == "amx") return flags.contains("amx_bf16");
  if (name == "mkl" || name == "onednn") return !report["libtorch"][name].is_null();
  return flags.contains(name);
}

void run(const DoctorCommand& c) {
  cli::apply_common_options(c.common, 0);
  const Facts about = {{"version", version()}, {"commit", git_hash()}, {"build_type", FOCUS_BUILD_TYPE}};
  Facts report = {{"focus", about},
                  {"libtorch", torch_facts()},
                  {"processor", processor_facts()},
                  {"threads", thread_facts()},
                  {"memory", memory_facts()},
                  {"cuda", cuda_facts()}};
  std::vector<SelfCheck> checks = self_checks(at::kCPU);
  for (int64_t i = 0; i < report["cuda"]["usable_devices"].get<int64_t>(); ++i) {
    const auto more = self_checks(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(i)));
    checks.insert(checks.end(), more.begin(), more.end());
  }
  report["checks"] = check_facts(checks);
  std::vector<std::string> missing;
  for (const std::string& name : c.require) {
    if (!available(name, report)) missing.push_back(name);
  }
  const auto failed =
      std::count_if(checks.begin(), checks.end(), [](const SelfCheck& check) { return !check.passed(); });
  report["missing"] = missing;
  report["usable"] = failed == 0 && missing.empty();

  cli::Table out(c.output);
  out.write(c.json ? report.dump(2, ' ', false, Facts::error_handler_t::replace) + "\n"
                   : text_of(report, checks));
  out.commit();
  if (failed > 0)
    fail<CheckFailed>(
        failed, " of ", checks.size(),
        " self-checks failed: this build computes wrong numbers on this machine; see the report, build "
        "again, and try FOCUS_CPU_ISA=baseline in the environment");
  if (missing.empty()) return;
  std::string names;
  for (const std::string& name : missing) names += (names.empty() ? "" : ", ") + name;
  const bool cuda = std::find(missing.begin(), missing.end(), "cuda") != missing.end();
  fail<DeviceError>("required but missing: ", names,
                    cuda ? "; " + report["cuda"]["note"].get<std::string>() : "");
}

}  // namespace

void add_doctor(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "doctor", "What this build and this machine are, and a second's check that they compute correctly.");
  const auto command = std::make_shared<DoctorCommand>();
  DoctorCommand& c = *command;
  sub->add_option("--require", c.require, "exit with 4 when this is missing; may be repeated")
      ->check(CLI::IsMember({"cuda", "avx2", "avx512", "avx512_bf16", "amx", "mkl", "onednn"}))
      ->allow_extra_args(false)
      ->take_all();
  sub->option_defaults()->group("Output");
  sub->add_flag("--json", c.json, "machine-readable");
  sub->add_option("-o,--output", c.output, "report; - = standard output")->capture_default_str();
  sub->option_defaults()->group("Machine");
  cli::add_threads(*sub, c.common, "CPU threads of the checks");
  sub->callback([command] { run(*command); });
}

}  // namespace focus::tools
