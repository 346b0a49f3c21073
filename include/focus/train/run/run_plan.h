// What a run would do and take, told before it starts.
#pragma once

#include <cstdint>
#include <string>

#include "focus/train/loop/task.h"
#include "focus/train/run/config.h"

namespace focus::train {

/// Stages, windows, schedule, trainable parameters by module, memory and one drawn sample, as text. Checks
/// what the run itself would check first. The memory is a guide, not a bound. DataError; ConfigError.
std::string describe_run(const TrainConfig& config, const Task& task, int64_t num_ranks);

}  // namespace focus::train
