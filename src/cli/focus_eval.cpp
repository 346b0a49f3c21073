#include <chrono>
#include <iostream>
#include <memory>
#include <optional>

#include "commands.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/data/input_files.h"
#include "focus/distributed/ranks.h"
#include "focus/eval/fidelity.h"
#include "focus/model/placement.h"
#include "focus/report/fidelity_report.h"
#include "focus/report/fidelity_table.h"
#include "focus/report/report_folder.h"
#include "focus/report/values_file.h"
#include "focus/weights/model_files.h"
#include "gate_options.h"

namespace focus::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct FidelityCommand {
  CommonOptions common;
  std::string adapter, fasta, output;
  report::Gates gates;
  bool force = false, help_config = false;
};

std::vector<NamedPath> inputs_of(const eval::FidelityConfig& config, const std::string& config_file) {
  std::vector<NamedPath> inputs = weights::model_files(config.model_config, config.model_checkpoint);
  inputs.push_back({"--config", config_file});
  for (const NamedPath& file : data::fasta_files("fasta", config.fasta)) inputs.push_back(file);
  for (const std::string& region : config.regions) inputs.push_back({"regions", region});
  if (!config.adapter.empty()) inputs.push_back({"adapter", compress::adapter_file(config.adapter)});
  for (const auto& [label, path] : config.adapters)
    inputs.push_back({"adapters." + label, compress::adapter_file(path)});
  return inputs;
}

void run_fidelity(const FidelityCommand& c, const std::string& command_line) {
  eval::FidelityConfig config;
  if (c.help_config) {
    std::cout << config::describe(config);
    return;
  }
  const auto start = Clock::now();
  apply_verbosity(c.common);
  config::read_file(c.common.config, c.common.overrides, config);
  if (!c.adapter.empty()) config.adapter = c.adapter;
  if (!c.fasta.empty()) config.fasta = c.fasta;
  if (!c.common.device.empty()) config.device = c.common.device;
  if (!c.common.dtype.empty()) config.dtype = c.common.dtype;
  config.seed = c.common.seed.value_or(config.seed);
  config.threads = c.common.threads.value_or(config.threads);
  const auto environment = distributed::read_rank_environment();
  CommonOptions common = c.common;
  apply_rank(environment, config.threads, config.device, common);
  apply_common_options(common, config.threads);
  config.validate();
  GateKeeper gates(c.gates);
  gates.require_answerable(config);
  const std::string device = model::resolve_devices(config.device);
  const auto dtype = model::parse_dtype(config.dtype);
  const auto ranks = distributed::join_ranks(environment, model::first_device(device),
                                             {.meet_seconds = config.rank_timeout_seconds,
                                              .answer_seconds = config.rank_timeout_seconds,
                                              .advice = "No report was written; start all ranks again"});
  // After the ranks have met: where rank 0 cannot write, the others learn of it at once.
  std::optional<report::ReportFolder> folder;
  if (ranks->is_first()) {
    folder.emplace(c.output, c.force);
    require_separate({{"--output", c.output}}, inputs_of(config, c.common.config));
  }
  std::optional<report::ValuesFile> values;
  if (folder && config.positions) values.emplace(folder->temporary() / report::kValuesFile);
  report::FidelityResult result =
      eval::run_fidelity(config, device, dtype, *ranks, nullptr, report::writer(values));
  if (!folder) return;
  result.provenance["command_line"] = command_line;
  result.provenance["wall"] = format_duration(std::chrono::duration<double>(Clock::now() - start).count());
  result.provenance["peak_resident"] = format_bytes(read_process_memory().peak);
  if (values) values->finish(result);
  report::write_fidelity_report(result, folder->temporary());
  folder->commit();
  std::cout << report::fidelity_table(result) << (std::filesystem::path(c.output) / "report.html").string()
            << std::endl;
  gates.check(config, report::read_run_summary(c.output));
  gates.finish();
}

void add_fidelity(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand("fidelity",
                                     "Compares compressed memory with full memory, position by position, on "
                                     "random segments of real sequence.");
  const auto command = std::make_shared<FidelityCommand>();
  FidelityCommand& c = *command;
  add_common_options(*sub, c.common);
  sub->option_defaults()->group("Input");
  sub->add_option("-a,--adapter", c.adapter, "trained adapter: its file, or the folder of its training run");
  sub->add_option("--fasta", c.fasta, "sequences: FASTA or JSON lines, or a folder of such files");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "the report's folder");
  sub->add_flag("-f,--force", c.force, "replace an earlier report in --output");
  add_gates(*sub, c.gates);
  sub->option_defaults()->group("Advanced");
  sub->add_flag("--help-config", c.help_config, "list every setting with its default and meaning, then exit");
  sub->callback([command, command_line] { run_fidelity(*command, command_line); });
}

}  // namespace
}  // namespace focus::cli

int main(int argc, char** argv) {
  CLI::App app("Measures what compressed memory costs.", "focus-eval");
  app.require_subcommand(1);
  const std::string command_line = focus::cli::quoted_command(argc, argv);
  focus::cli::add_fidelity(app, command_line);
  focus::cli::add_calibrate(app, command_line);
  focus::cli::add_sweep(app, command_line);
  focus::cli::add_report(app, command_line);
  return focus::cli::run_program(app, argc, argv);
}
