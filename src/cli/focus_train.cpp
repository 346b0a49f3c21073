#include <iostream>

#include "commands.h"
#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/output_guard.h"
#include "focus/core/units.h"
#include "focus/distributed/ranks.h"
#include "focus/model/placement.h"
#include "focus/train/loop/trainer.h"
#include "focus/train/run/run_plan.h"

int main(int argc, char** argv) {
  using namespace focus;
  CLI::App app(
      "Trains a FOCUS adapter on a frozen backbone (task: adapter), or a small backbone from scratch (task: "
      "pretrain).",
      "focus-train");
  cli::CommonOptions common;
  std::string memory_config, output;
  bool resume = false, force = false, dry_run = false, help_config = false;
  cli::add_common_options(app, common);
  app.option_defaults()->group("Input");
  app.add_option(
      "--memory-config", memory_config,
      "JSON file of memory settings, like the memory.json of focus-eval calibrate, in place of all "
      "that --config says of memory");
  app.option_defaults()->group("Output");
  app.add_option("-o,--output", output, "run folder: configuration, metrics, checkpoints, result");
  app.add_flag("--resume", resume, "continue the run in --output; starts afresh when it holds none");
  app.add_flag("-f,--force", force, "replace an earlier run in --output");
  app.option_defaults()->group("Advanced");
  app.add_flag("--dry-run", dry_run, "resolve and check everything, print the plan, train nothing");
  app.add_flag("--help-config", help_config, "list every setting with its default and meaning, then exit");
  cli::add_pack(app, cli::quoted_command(argc, argv));

  return cli::run_program(app, argc, argv, [&] {
    if (app.got_subcommand("pack")) return;
    train::TrainConfig config;
    if (help_config) {
      std::cout << config::describe(config);
      return;
    }
    if (common.config.empty() && common.overrides.empty())
      fail<ConfigError>("--config is missing: name the run's JSON file (--help-config lists its settings)");
    cli::apply_verbosity(common);
    if (memory_config.empty()) {
      config::read_file(common.config, common.overrides, config);
    } else {
      require_separate({{"--output", output}}, {{"--memory-config", memory_config}});
      config::read_file(common.config, {}, config);
      config.memory = {};
      config::read_file(memory_config, {}, config.memory);
      config::read_file("", common.overrides, config);
    }
    if (!common.device.empty()) config.device = common.device;
    if (!common.dtype.empty()) config.dtype = common.dtype;
    config.seed = common.seed.value_or(config.seed);
    const auto environment = distributed::read_rank_environment();
    cli::apply_rank(environment, config.threads, config.device, common);
    cli::apply_common_options(common, config.threads);
    config.validate();
    if (output.empty() && !dry_run) fail<ConfigError>("--output is missing: name the run's folder");
    const at::Device device = model::first_device(model::resolve_devices(config.device));
    const auto ranks = distributed::join_ranks(dry_run ? distributed::RankEnvironment() : environment, device,
                                               {.meet_seconds = config.rank_timeout_seconds,
                                                .answer_seconds = config.rank_timeout_seconds,
                                                .advice = "Continue from the last checkpoint with --resume"});
    const auto task = train::make_task(config, device);
    if (dry_run) {
      if (environment.rank == 0)
        std::cout << config::to_json(config) << "\n" << train::describe_run(config, *task, environment.size);
      return;
    }
    train::TrainerOptions options;
    options.output = output;
    options.config_file = common.config;
    options.resume = resume;
    options.force = force;
    options.command_line.assign(argv, argv + argc);
    options.ranks = ranks.get();
    const auto result = train::train(config, *task, options);
    if (result.trained == 0 && result.steps > 0) return;  // said when the run was resumed
    log::info(concat("done: ", result.steps, " steps in ", format_duration(result.seconds), ", last loss ",
                     result.last_loss, result.skipped > 0 ? concat(", ", result.skipped, " skipped") : ""));
  });
}
