#include "run/run_record.h"

#include "focus/core/error.h"
#include "focus/core/log.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/ops/device_memory.h"
#include "run/leak_check.h"

namespace focus::train {
namespace {

RunFolder prepare(const RunData& data, const TrainerOptions& options) {
  RunFolderOptions folder;
  folder.output = options.output;
  folder.resume = options.resume;
  folder.force = options.force;
  folder.config_json = config::to_json(data.config);
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
  folder.inputs = digest_inputs(data.config);
  require_held_out(data, folder.inputs);
  return prepare_run_folder(folder);
}

}  // namespace

RunRecord::RunRecord(const RunData& data, const TrainerOptions& options)
    : folder_(prepare(data, options)),
      store_(folder_.checkpoints, data.config.keep_last),
      metrics_(folder_.metrics, folder_.resume_step),
      events_(folder_.root, folder_.resume_step) {}

std::string RunRecord::write_step(int64_t step, MetricFields fields, double bases_per_second, double seconds_left,
                                  const at::Device& device) {
  const int64_t resident = read_process_memory().peak;
  fields.insert(fields.end(), {{"bases_per_second", bases_per_second}, {"seconds_left", seconds_left}, {"peak_resident_bytes", resident}});
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

void RunRecord::save(const Checkpoint& checkpoint, std::optional<int64_t> best_step) {
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
