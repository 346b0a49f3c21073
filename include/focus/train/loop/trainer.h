// The training loop: fetch all micro-batches of a step, forward and backward each, clip, check, step, log,
// validate, save. What is trained and which loss it takes is a Task's business.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "focus/distributed/ranks.h"
#include "focus/train/loop/task.h"
#include "focus/train/run/config.h"

namespace focus::train {

struct TrainerOptions {
  std::filesystem::path output;
  bool resume = false, force = false;
  std::string config_file;  // that the configuration was read from; empty: none
  std::vector<std::string> command_line;
  distributed::Ranks* ranks = nullptr;  // null: one process
};

struct TrainResult {
  int64_t steps = 0, skipped = 0;
  int64_t trained = 0;   // steps done here; the others were done before a resume
  double last_loss = 0;  // of the last step done here; 0 when none was
  double seconds = 0;
};

/// Runs the whole schedule. Throws Interrupted after a signal to any rank was honoured (checkpoint written),
/// CheckFailed on a non-finite loss or gradient that may not be skipped, naming step and samples.
///
/// With N ranks a step's micro-batches are split into N runs of consecutive ones, and gradients and losses
/// are summed: the samples, their weights and the divisor are those of one process, so that only the order of
/// additions differs. Rank 0 alone reads checkpoints and writes files; a run may be resumed with another
/// number of ranks. Held-out sequences are shared out too, with the same figures for any number.
TrainResult train(const TrainConfig& config, Task& task, const TrainerOptions& options);

}  // namespace focus::train
