#include "doctor_command.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/table.h"
#include "focus/core/error.h"
#include "focus/core/units.h"
#include "focus/kernels/isa.h"
#include "library_facts.h"
#include "self_check.h"

namespace focus::tools {
namespace {

Facts check_facts(const std::vector<SelfCheck>& checks) {
  Facts out = Facts::array();
  for (const SelfCheck& check : checks) {
    Facts entry = {{"name", check.name}, {"passed", check.passed()}, {"error", check.error}, {"limit", check.limit}};
    if (!check.failure.empty()) entry["failure"] = check.failure;
    out.push_back(std::move(entry));
  }
  return out;
}

std::string value_text(const std::string& key, const Facts& value) {
  if (value.is_null()) return "none";
  if (value.is_number_integer() && key.ends_with("_bytes")) return format_bytes(value.get<int64_t>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string line(const std::string& key, const std::string& value) {
  std::string name = key.ends_with("_bytes") ? key.substr(0, key.size() - 6) : key;
  if (name.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos) std::replace(name.begin(), name.end(), '_', ' ');
  return "  " + name + std::string(name.size() < 22 ? 22 - name.size() : 1, ' ') + " " + value + "\n";
}

std::string check_line(const Facts& check) {
  char figures[80];
  std::snprintf(figures, sizeof figures, "error %.1e, limit %.0e", check["error"].get<double>(), check["limit"].get<double>());
  return concat("  ", check["passed"].get<bool>() ? "ok    " : "FAILED", "  ", check["name"].get<std::string>(), ": ",
                check.contains("failure") ? check["failure"].get<std::string>() : figures, "\n");
}

std::string text_of(const Facts& report) {
  std::string out;
  for (const auto& section : report.items()) {
    if (section.key() == "checks") {
      out += "checks\n";
      for (const Facts& check : section.value()) out += check_line(check);
      continue;
    }
    if (!section.value().is_object()) continue;
    out += section.key() + "\n";
    for (const auto& item : section.value().items()) {
      if (item.key() != "devices") out += line(item.key(), value_text(item.key(), item.value()));
    }
    for (const Facts& device : section.value().value("devices", Facts::array())) {
      std::string text;
      for (const auto& item : device.items()) {
        if (item.key() != "index")
          text += concat(text.empty() ? "" : ", ", item.key() == "name" ? "" : item.key() + " ", value_text(item.key(), item.value()));
      }
      out += line(concat("device ", device["index"].get<int>()), text);
    }
  }
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

}  // namespace

CLI::App* add_doctor(CLI::App& app, DoctorCommand& c) {
  CLI::App* sub = app.add_subcommand("doctor", "What this build and this machine are, and a second's check that they compute correctly.");
  sub->add_option("--require", c.require, "exit with 4 when this is missing; may be repeated")
      ->check(CLI::IsMember({"cuda", "avx2", "avx512", "avx512_bf16", "amx", "mkl", "onednn"}))
      ->allow_extra_args(false)
      ->take_all();
  sub->option_defaults()->group("Output");
  sub->add_flag("--json", c.json, "machine-readable");
  sub->option_defaults()->group("Machine");
  sub->add_option("-t,--threads", c.threads, "CPU threads of the checks; 0 = all cores");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "report; - = standard output")->capture_default_str();
  return sub;
}

void run_doctor(const DoctorCommand& c) {
  cli::CommonOptions common;
  common.threads = c.threads;
  cli::apply_common_options(common, 0);
  Facts report = {{"focus", build_facts()},         {"libtorch", torch_facts()}, {"libraries", file_library_facts()},
                  {"processor", processor_facts()}, {"threads", thread_facts()}, {"memory", memory_facts()},
                  {"disk", space_facts()},          {"cuda", cuda_facts()}};
  report["processor"]["kernels_use"] = kernels::cpu_isa();
  report["processor"]["bf16_products"] = kernels::cpu_multiplies_bf16();
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
  const auto failed = std::count_if(checks.begin(), checks.end(), [](const SelfCheck& check) { return !check.passed(); });
  report["missing"] = missing;
  report["usable"] = failed == 0 && missing.empty();

  cli::Table out(c.output);
  out.write(c.json ? report.dump(2, ' ', false, Facts::error_handler_t::replace) + "\n" : text_of(report));
  out.commit();
  if (failed > 0)
    fail<CheckFailed>(failed, " of ", checks.size(),
                      " self-checks failed: this build computes wrong numbers on this machine; see the report, build again, "
                      "and try FOCUS_CPU_ISA=baseline in the environment");
  if (!missing.empty()) {
    std::string names;
    for (const std::string& name : missing) names += (names.empty() ? "" : ", ") + name;
    const bool cuda = std::find(missing.begin(), missing.end(), "cuda") != missing.end();
    fail<DeviceError>("required but missing: ", names,
                      cuda && report["cuda"].contains("note") ? "; " + report["cuda"]["note"].get<std::string>() : "");
  }
}

}  // namespace focus::tools
