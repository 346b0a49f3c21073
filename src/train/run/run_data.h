// What a run draws from its data, opened once, and the checks that come before its first step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "focus/data/sampler.h"
#include "focus/distributed/ranks.h"
#include "focus/train/run/config.h"
#include "focus/train/run/run_folder.h"

namespace focus::train {

struct RunData {
  /// DataError.
  explicit RunData(const TrainConfig& config);

  const TrainConfig& given;
  data::SequenceSampler training;
  TrainConfig config;                             // `given` with the steps of stages that are given as epochs
  std::optional<data::SequenceSampler> held_out;  // none: no validation
};

/// What a stage draws: the training data with the stage's own settings.
class StageSamples {
 public:
  StageSamples(const RunData& data, std::size_t stage);
  /// `index` counts through all stages.
  data::Sample sample(int64_t index) const;

 private:
  data::SequenceSampler sampler_;
  int64_t length_, first_;  // first_: the stage's first sample
  bool passes_;
};

/// Which of the stages the step after `step` steps belongs to.
std::size_t stage_at(const TrainConfig& config, int64_t step);
/// Bases of one optimizer step, over all ranks.
int64_t step_bases(const TrainConfig& config, const StageConfig& stage);

/// "index record:begin-end" of samples [first, end), at most eight of them.
std::string describe_samples(const StageSamples& samples, int64_t first, int64_t end);

/// ConfigError unless the micro-batches of a step can be split evenly over the ranks.
void require_splittable(const TrainConfig& config, int64_t num_ranks);

/// Draws one sequence of each kind, so that data too short for the longest stage are reported before there is
/// a run folder, and compares settings, backbone and drawn sequences with rank 0's. DataError; ConfigError
/// where ranks differ.
void require_same_run(const RunData& data, const std::string& identity, distributed::Ranks& ranks);

/// Size and SHA-256 of the files that a run depends on: the model's, the training data's and the validation
/// data's. DataError.
std::vector<InputDigest> digest_inputs(const TrainConfig& config);

}  // namespace focus::train
