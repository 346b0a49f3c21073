// Losses and gradients of one step: of all its micro-batches, on all ranks.
#pragma once

#include "focus/distributed/ranks.h"
#include "focus/train/loop/optimizer.h"
#include "focus/train/loop/task.h"

namespace focus::train {

struct StepLoss {
  double weight = 0;   // of all positions of the step
  double loss = 0;     // weighted mean over them
  MetricFields facts;  // parts of the loss, then other means, by name
};

/// Adds the gradient of the step's loss to the parameters'. Sums over micro-batches and ranks are divided
/// once, by the whole step's weight, so that accumulation on any number of ranks equals one big batch. Where
/// that weight is 0 nothing is computed. The device is waited for before the first forward and after the last
/// backward pass, not between.
StepLoss backward(Objective& objective, std::vector<Batch>& batches, distributed::Ranks& ranks,
                  const std::vector<Parameter>& parameters);

}  // namespace focus::train
