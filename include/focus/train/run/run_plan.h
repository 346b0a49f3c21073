// What a run would do and take, told before it starts.
#pragma once

#include <cstdint>
#include <string>

#include "focus/train/loop/trainer.h"
#include "focus/train/run/config.h"

namespace focus::train {

/// Bytes on the device, by what they are for.
struct MemoryEstimate {
  int64_t weights = 0;      // of the backbone; frozen ones stay in their mapped file on a CPU
  int64_t trainable = 0;    // parameters, gradients, two moments and, below fp32, a master copy
  int64_t activations = 0;  // one micro-batch of the longest stage
  int64_t total() const { return weights + trainable + activations; }
};

/// Activations by this rule: a block through which a gradient flows keeps 1.5 times, an attention block 2.75 times, its temporary memory of
/// inference (Block::workspace_bytes) for every position; a recomputed one only its input, and the largest of them works once. Blocks below
/// the first trained one keep nothing. Logits: ten fp32 arrays of [positions, vocabulary]. The factors were fitted to one small model in
/// fp32: the figure is a guide, not a bound, and what the process itself takes (libraries, data held in memory) comes on top.
MemoryEstimate estimate_memory(const TrainConfig& config, Task& task);

/// Stages, windows, schedule, trainable parameters by module, memory and one drawn sample, as text. Checks what the run itself would check
/// first. DataError; ConfigError.
std::string describe_run(const TrainConfig& config, Task& task, int64_t num_ranks);

}  // namespace focus::train
