#include "run/run_record.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/core/version.h"
#include "focus/data/input_files.h"
#include "focus/ops/device_memory.h"
#include "focus/weights/model_files.h"
#include "run/leak_check.h"

namespace focus::train {
namespace {

constexpr char kValidation[] = "validation_", kRun[] = "run";

std::vector<NamedPath> read_by(const TrainConfig& config, const TrainerOptions& options) {
  std::vector<NamedPath> files = weights::model_files(config.model_config, config.model_checkpoint);
  for (const NamedPath& file : data::sampler_files("data", config.data)) files.push_back(file);
  for (const NamedPath& file : data::sampler_files("validation.data", config.validation.data))
    files.push_back(file);
  if (!config.adapter.empty()) files.push_back({"adapter", compress::adapter_file(config.adapter)});
  // A run may be continued by the configuration in its own folder, which is written again as it is.
  if (!options.resume) files.push_back({"--config", options.config_file});
  return files;
}

RunFolder prepare(const RunData& data, const std::string& config_json, const std::vector<InputDigest>& inputs,
                  const TrainerOptions& options) {
  RunFolderOptions folder;
  folder.output = options.output;
  folder.resume = options.resume;
  folder.force = options.force;
  folder.config_json = config_json;
  TrainConfig earlier;  // settings that an older run's file lacks, as they were before they had a name
  earlier.memory.focus.fitted = compress::FittedUnitConfig::plain();
  folder.default_config_json = config::to_json(earlier);
  folder.may_change = {"checkpoint_every",
                       "keep_last",
                       "device",
                       "threads",
                       "validation.every",
                       "result",
                       "non_finite",
                       "max_skips",
                       "rank_timeout_seconds",
                       "validation.allow_overlap"};
  folder.command_line = options.command_line;
  folder.inputs = inputs;
  folder.reads = read_by(data.config, options);
  require_held_out(data, inputs);
  return prepare_run_folder(folder);
}

}  // namespace

RunRecord::RunRecord(const RunData& data, const TrainerOptions& options)
    : config_json_(config::to_json(data.given)),
      inputs_(digest_inputs(data.config)),
      folder_(prepare(data, config_json_, inputs_, options)),
      store_(folder_.checkpoints, data.config.keep_last),
      metrics_(folder_.metrics, folder_.resume_step),
      events_(folder_.root, folder_.resume_step) {}

Checkpoint RunRecord::load(int64_t step) const {
  Checkpoint checkpoint = store_.load(step);
  // Versions before this one did not name the run.
  if (checkpoint.state.extra.contains(kRun) && checkpoint.state.get<std::string>(kRun) != folder_.run)
    fail<CheckpointError>("'", store_.path_of(step).string(), "' belongs to another run (",
                          checkpoint.state.get<std::string>(kRun), ") than this folder (", folder_.run,
                          "); remove it, or start anew with --force");
  return checkpoint;
}

std::string RunRecord::training(int64_t step, int64_t bases) const {
  using Json = nlohmann::ordered_json;
  Json inputs = Json::array(), validation = nullptr;
  for (const InputDigest& input : inputs_)
    inputs.push_back({{"path", input.path}, {"bytes", input.bytes}, {"sha256", input.sha256}});
  std::istringstream lines(read_file(folder_.metrics));
  for (std::string line; std::getline(lines, line);) {
    const Json entry = Json::parse(line);
    if (entry.at("step") != step) continue;
    for (const auto& [name, value] : entry.items()) {
      if (name.starts_with(kValidation)) validation[name.substr(std::strlen(kValidation))] = value;
    }
  }
  return Json::object({{"version", version()},
                       {"git_hash", git_hash()},
                       {"run", folder_.run},
                       {"begun", folder_.begun},
                       {"steps", step},
                       {"bases", bases},
                       {"inputs", inputs},
                       {"validation", validation},
                       {"config", Json::parse(config_json_)}})
      .dump();
}

std::string RunRecord::write_step(int64_t step, MetricFields fields, double bases_per_second,
                                  double seconds_left, const at::Device& device) {
  const int64_t resident = read_process_memory().peak;
  fields.insert(fields.end(), {{"bases_per_second", bases_per_second},
                               {"seconds_left", seconds_left},
                               {"peak_resident_bytes", resident}});
  std::string memory = concat("peak ", format_bytes(resident));
  if (device.is_cuda()) {
    const int64_t on_device = ops::peak_device_bytes(device);
    fields.emplace_back("peak_device_bytes", on_device);
    memory += concat(", on the device ", format_bytes(on_device));
  }
  metrics_.write(step, fields);
  events_.write(step, fields);
  return memory;
}

void RunRecord::write_validation(int64_t step, const MetricFields& figures) {
  std::string text = concat("validation at step ", step, ":");
  for (const auto& [name, value] : figures) text += concat(" ", name, " ", std::get<double>(value));
  metrics_.write(step, figures);
  events_.write(step, figures);
  log::info(text);
}

void RunRecord::save(Checkpoint checkpoint, std::optional<int64_t> best_step) {
  checkpoint.state.extra[kRun] = folder_.run;
  metrics_.sync();
  events_.sync();
  store_.set_best(best_step);
  store_.save(checkpoint);
}

void RunRecord::tidy(std::optional<int64_t> best_step) {
  store_.set_best(best_step);
  store_.tidy();
}

}  // namespace focus::train
