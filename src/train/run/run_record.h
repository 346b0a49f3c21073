// What a run leaves in its folder while it goes on: metrics.jsonl, TensorBoard events, checkpoints. Only rank
// 0 has one.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <optional>
#include <string>

#include "event_log.h"
#include "focus/train/loop/trainer.h"
#include "focus/train/run/checkpoint.h"
#include "focus/train/run/metrics_log.h"
#include "focus/train/run/run_folder.h"
#include "run_data.h"

namespace focus::train {

class RunRecord {
 public:
  /// Prepares the run's folder (see prepare_run_folder), and cuts its logs back to the checkpoint a resumed
  /// run goes on from.
  RunRecord(const RunData& data, const TrainerOptions& options);

  const std::filesystem::path& root() const { return folder_.root; }
  std::filesystem::path best_folder() const { return folder_.root / "best"; }
  std::optional<int64_t> resume_step() const { return folder_.resume_step; }
  const CheckpointStore& checkpoints() const { return store_; }
  /// CheckpointError: as load_checkpoint(), and a checkpoint of another run.
  Checkpoint load(int64_t step) const;
  /// What the run's result says of its making, as JSON: version, begin, inputs and configuration of the run,
  /// the step and bases that its parameters have seen, and the figures of the validation at that step, where
  /// there was one.
  std::string training(int64_t step, int64_t bases) const;

  /// Completes the fields with speed, remaining time and peak memory, and returns the memory as text.
  std::string write_step(int64_t step, MetricFields fields, double bases_per_second, double seconds_left,
                         const at::Device& device);
  void write_validation(int64_t step, const MetricFields& figures);
  /// No checkpoint is newer on disk than its metrics. `best_step` names the one that rotation spares.
  void save(Checkpoint checkpoint, std::optional<int64_t> best_step);
  /// Finishes a rotation that a kill cut short.
  void tidy(std::optional<int64_t> best_step);

 private:
  std::string config_json_;
  std::vector<InputDigest> inputs_;
  RunFolder folder_;
  CheckpointStore store_;
  MetricsLog metrics_;
  EventLog events_;
};

}  // namespace focus::train
