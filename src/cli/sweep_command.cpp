#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>

#include "commands.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/version.h"
#include "focus/data/input_files.h"
#include "focus/data/open_sequences.h"
#include "focus/data/sampler.h"
#include "focus/distributed/rank_environment.h"
#include "focus/eval/sweep.h"
#include "focus/model/placement.h"
#include "focus/train/loop/trainer.h"
#include "focus/train/run/run_folder.h"
#include "focus/weights/model_files.h"
#include "gate_options.h"

namespace focus::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::array kTables = {"sweep.tsv", "sweep.json", "sweep.html", "focus_mqc.json"};

/// Only warnings, unless more than usual is asked for.
class Quieter {
 public:
  Quieter() {
    if (before_ == 1) log::set_verbosity(0);
  }
  ~Quieter() { log::set_verbosity(before_); }
  Quieter(const Quieter&) = delete;
  Quieter& operator=(const Quieter&) = delete;

 private:
  int before_ = log::verbosity();
};

class AdapterTrainer final : public eval::CellTrainer {
 public:
  AdapterTrainer(std::string config_file, std::string device, int64_t threads,
                 const std::string& command_line)
      : config_file_(std::move(config_file)),
        device_(std::move(device)),
        threads_(threads),
        command_line_(command_line) {}

  Plan plan(const std::vector<std::string>& overrides, double scale) override {
    train::TrainConfig config;
    config::read_file(config_file_, overrides, config);
    config.device = device_;
    config.threads = threads_;
    for (train::StageConfig& stage : config.stages) {
      if (stage.epochs > 0 && scale != 1)
        fail<ConfigError>(
            "scale cannot shorten a stage that is given as epochs; set its epochs to 0 and its steps");
      if (stage.epochs == 0)
        stage.steps = std::max<int64_t>(1, std::llround(scale * static_cast<double>(stage.steps)));
    }
    if (config.task != train::TaskKind::adapter)
      fail<ConfigError>("'", config_file_,
                        "': task 'pretrain' trains no adapter; a sweep needs task 'adapter'");
    config.validate();
    Plan out;
    out.config_json = config::to_json(config);
    out.memory = config.memory;
    for (const train::StageConfig& stage : config.stages) out.bases += bases_of(config, stage);
    out.identity = identity(config);
    return out;
  }

  void train(const Plan& plan, const fs::path& folder) override {
    train::TrainConfig config;
    config::read_text(plan.config_json, "the cell's training", {}, config);
    // The sweep has a line of its own.
    const Quieter quieter;
    const auto task = train::make_task(config, model::first_device(device_));
    train::TrainerOptions options;
    options.output = folder;
    options.config_file = config_file_;
    options.resume = true;  // starts afresh where there is nothing
    options.command_line = {command_line_};
    train::train(config, *task, options);
  }

 private:
  static int64_t bases_of(const train::TrainConfig& config, const train::StageConfig& stage) {
    if (stage.epochs == 0) return stage.steps * stage.batch * config.accumulation * stage.length;
    const data::SequenceSampler sampler(config.data, static_cast<uint64_t>(config.seed));
    return stage.epochs * sampler.pass_size(stage.length) * stage.length;
  }

  /// Settings and contents of files; not where they are, nor what each machine does its own way.
  std::string identity(train::TrainConfig config) {
    std::string text = concat("version ", version(), "\ngit ", git_hash(), "\n");
    const auto add = [&](const std::string& what, std::string& path) {
      if (!path.empty()) text += concat(what, " ", digest(path), "\n");
      path.clear();
    };
    for (const NamedPath& file : weights::model_files(config.model_config, config.model_checkpoint))
      text += concat(file.what, " ", digest(file.path), "\n");
    if (!config.adapter.empty()) config.adapter = compress::adapter_file(config.adapter);
    add("adapter", config.adapter);
    for (data::SamplerConfig* sampler : {&config.data, &config.validation.data}) {
      for (data::SourceConfig& source : sampler->sources) {
        add("fasta", source.fasta);
        add("jsonl", source.jsonl);
        add("hdf5", source.hdf5);
      }
    }
    for (const auto* sampler : {&config.data, &config.validation.data}) {
      for (const NamedPath& file : data::sampler_files("data", *sampler)) {
        if (file.path.string().find(".bed") != std::string::npos)
          text += concat("bed ", digest(file.path), "\n");
      }
    }
    config.model_config = config.model_checkpoint = "";
    config.device = device_.substr(0, device_.find(':'));
    config.threads = 0;
    config.rank_timeout_seconds = train::TrainConfig().rank_timeout_seconds;
    return text + config::to_json(config);
  }

  const std::string& digest(const fs::path& path) {
    std::string& known = digests_[path.string()];
    if (known.empty()) known = data::source_digest(path);
    return known;
  }

  std::string config_file_, device_;
  int64_t threads_;
  std::string command_line_;
  std::map<std::string, std::string> digests_;
};

struct SweepCommand {
  CommonOptions common;
  std::string adapter, fasta, output;
  report::Gates gates;
  bool dry_run = false, help_config = false;
};

/// A folder that is not empty must be a sweep's.
void check_output(const fs::path& output) {
  if (output.empty()) fail<ConfigError>("--output is missing: name the sweep's folder");
  if (!fs::exists(output)) return;
  if (!fs::is_directory(output))
    fail<ConfigError>("output '", output.string(), "' is a file; pass a folder with --output");
  if (!fs::is_empty(output) && !fs::exists(output / "cells"))
    fail<ConfigError>("output folder '", output.string(),
                      "' is not empty and holds no sweep; pass another --output");
}

void run_sweep(const SweepCommand& c, const std::string& command_line) {
  if (c.help_config) {
    std::cout << config::describe(eval::SweepConfig());
    return;
  }
  apply_verbosity(c.common);
  eval::SweepConfig config = eval::read_sweep_config(c.common.config, c.common.overrides);
  eval::FidelityConfig& base = config.evaluation;
  if (!c.adapter.empty()) base.adapter = c.adapter;
  if (!c.fasta.empty()) base.fasta = c.fasta;
  if (!c.common.device.empty()) base.device = c.common.device;
  if (!c.common.dtype.empty()) base.dtype = c.common.dtype;
  base.seed = c.common.seed.value_or(base.seed);
  base.threads = c.common.threads.value_or(base.threads);
  CommonOptions common = c.common;
  // Ranks are workers that share the cells; they need not meet.
  apply_rank(distributed::read_rank_environment(), base.threads, base.device, common);
  apply_common_options(common, base.threads);
  check_output(c.output);
  for (const char* name : kTables)
    require_separate({{"--output", fs::path(c.output) / name}}, {{"--config", c.common.config}});
  const std::string device = model::resolve_devices(base.device);
  GateKeeper gates(c.gates);
  AdapterTrainer trainer(config.train.config, device, base.threads, command_line);
  eval::Sweep sweep(config, device, {.output = c.output, .command_line = command_line, .trainer = &trainer});
  for (const eval::PlannedCell& cell : sweep.cells()) gates.require_answerable(cell.config);
  if (c.dry_run) {
    std::cout << sweep.describe();
    return;
  }
  const auto write_tables = [&] {
    report::SweepResult result = sweep.result();
    report::write_sweep_report(result, c.output);
    return result;
  };
  try {
    sweep.run();
  } catch (...) {
    if (fs::exists(fs::path(c.output) / "cells")) write_tables();
    throw;
  }
  const report::SweepResult result = write_tables();
  for (const std::string& note : report::sweep_notes(result)) std::cout << note << "\n";
  std::cout << (fs::path(c.output) / "sweep.html").string() << std::endl;
  int64_t missing = 0;
  for (std::size_t i = 0; i < result.cells.size(); ++i) {
    const auto& cell = result.cells[i];
    missing += cell.run ? 0 : 1;
    if (cell.run) gates.check(sweep.cells()[i].config, *cell.run, concat("cell ", cell.id, ": "));
  }
  if (missing > 0)
    throw Error(concat(missing, " of ", result.cells.size(), " cell(s) failed; what they said is in '",
                       (fs::path(c.output) / "failed").string(), "', and the others are done"),
                static_cast<ExitCode>(sweep.failed_exit_code()));
  gates.finish();
}

}  // namespace

void add_sweep(CLI::App& app, const std::string& command_line) {
  CLI::App* sub = app.add_subcommand(
      "sweep",
      "Measures every cell of a grid of settings, each cell a fidelity run, or a training and the run of "
      "its adapter. Start it again to resume, or again beside itself to share the work.");
  const auto command = std::make_shared<SweepCommand>();
  SweepCommand& c = *command;
  add_common_options(*sub, c.common);
  sub->option_defaults()->group("Input");
  sub->add_option("-a,--adapter", c.adapter, "trained adapter: its file, or the folder of its training run");
  sub->add_option("--fasta", c.fasta, "sequences: FASTA or JSON lines, or a folder of such files");
  sub->option_defaults()->group("Output");
  sub->add_option("-o,--output", c.output, "the sweep's folder; what it holds already is not measured again");
  add_gates(*sub, c.gates);
  sub->option_defaults()->group("Advanced");
  sub->add_flag("--dry-run", c.dry_run, "print the cells, what their methods hold and the time left");
  sub->add_flag("--help-config", c.help_config, "list every setting with its default and meaning, then exit");
  sub->callback([command, command_line] { run_sweep(*command, command_line); });
}

}  // namespace focus::cli
