// The tasks there are.
#pragma once

#include <memory>

#include "focus/train/loop/task.h"

namespace focus::train {

/// Trains a FOCUS adapter on a frozen backbone.
std::unique_ptr<Task> make_adapter_task(const TrainConfig& config);
/// Trains a backbone from scratch to predict the next base.
std::unique_ptr<Task> make_pretrain_task(const TrainConfig& config, const at::Device& device);

/// A parameter of a backbone. A Hyena pole whose decay is above 1 would let the state grow without bound.
inline Parameter backbone_parameter(const std::string& name, const at::Tensor& tensor, bool decay) {
  return {name, tensor, decay, name.ends_with("log_poles") ? std::optional(-1e-7) : std::nullopt};
}

}  // namespace focus::train
