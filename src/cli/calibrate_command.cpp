#include <iostream>
#include <memory>
#include <optional>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/output_guard.h"
#include "focus/data/input_files.h"
#include "focus/distributed/ranks.h"
#include "focus/eval/calibrate.h"
#include "focus/model/placement.h"
#include "focus/report/report_folder.h"
#include "focus/weights/model_files.h"

namespace focus::cli {
namespace {

struct CalibrateCommand {
  CommonOptions common;
  std::string fasta, output;
  std::optional<double> min_r;
  int64_t max_bytes = 0;
  bool force = false, help_config = false;
};

std::vector<NamedPath> inputs_of(const eval::CalibrateConfig& config, const std::string& config_file) {
  std::vector<NamedPath> inputs = weights::model_files(config.run.model_config, config.run.model_checkpoint);
  inputs.push_back({"--config", config_file});
  for (const NamedPath& file : data::fasta_files("fasta", config.run.fasta)) inputs.push_back(file);
  for (const std::string& region : config.run.regions) inputs.push_back({"regions", region});
  for (const data::SourceConfig& source : config.data.sources) {
    if (!source.fasta.empty()) {
      for (const NamedPath& file : data::fasta_files("data.sources", source.fasta)) inputs.push_back(file);
    }
    inputs.push_back({"data.sources", source.jsonl});
    inputs.push_back({"data.sources", source.hdf5});
  }
  return inputs;
}

void run(const CalibrateCommand& c, const std::string& command_line) {
  eval::CalibrateConfig config;
  if (c.help_config) {
    std::cout << config::describe(config);
    return;
  }
  apply_verbosity(c.common);
  config::read_file(c.common.config, c.common.overrides, config);
  if (!c.fasta.empty()) config.run.fasta = c.fasta;
  if (!c.common.device.empty()) config.run.device = c.common.device;
  if (!c.common.dtype.empty()) config.run.dtype = c.common.dtype;
  config.run.seed = c.common.seed.value_or(config.run.seed);
  config.run.threads = c.common.threads.value_or(config.run.threads);
  config.goal.min_r = c.min_r.value_or(config.goal.min_r);
  if (c.max_bytes > 0) config.goal.max_bytes = c.max_bytes;
  const auto environment = distributed::read_rank_environment();
  CommonOptions common = c.common;
  apply_rank(environment, config.run.threads, config.run.device, common);
  apply_common_options(common, config.run.threads);
  config.validate();
  const std::string device = model::resolve_devices(config.run.device);
  const auto dtype = model::parse_dtype(config.run.dtype);
  const auto ranks = distributed::join_ranks(environment, model::first_device(device),
                                             {.meet_seconds = config.run.rank_timeout_seconds,
                                              .answer_seconds = config.run.rank_timeout_seconds,
                                              .advice = "No report was written; start all ranks again"});
  // After the ranks have met: where rank 0 cannot write, the others learn of it at once.
  std::optional<report::ReportFolder> folder;
  if (ranks->is_first()) {
    folder.emplace(c.output, c.force);
    require_separate({{"--output", c.output}}, inputs_of(config, c.common.config));
  }
  eval::Calibration calibration = eval::run_calibrate(config, device, dtype, *ranks);
  if (!folder) return;
  calibration.result.provenance["command_line"] = command_line;
  eval::write_calibration(calibration, folder->temporary());
  folder->commit();
  std::cout << report::calibration_table(calibration.result)
            << (std::filesystem::path(c.output) / "memory.json").string() << std::endl;
}

}  // namespace

void add_calibrate(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand(
      "calibrate", "Measures each memory in each attention block alone, and plans which block gets which.");
  const auto command = std::make_shared<CalibrateCommand>();
  CalibrateCommand& c = *command;
  add_common_options(*sub, c.common);
  sub->option_defaults()->group("Input");
  sub->add_option("--fasta", c.fasta, "sequences: FASTA or JSON lines, or a folder of such files");
  sub->option_defaults()->group("Plan");
  sub->add_option("--min-r", c.min_r,
                  "share of what forgetting loses that the plan is to keep, R; default 0.9")
      ->check(CLI::Range(0.0, 1.0));
  add_bytes(*sub, "--max-bytes", c.max_bytes,
            "most bytes beside the model that the plan may hold after at_length bases; 0 = any");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "folder of the report and the plan, which is an adapter");
  sub->add_flag("-f,--force", c.force, "replace an earlier report in --output");
  sub->option_defaults()->group("Advanced");
  sub->add_flag("--help-config", c.help_config, "list every setting with its default and meaning, then exit");
  sub->callback([command, command_line] { run(*command, command_line); });
}

}  // namespace focus::cli
