// Next-base training of a backbone from scratch.
#pragma once

#include <memory>

#include "focus/train/loop/trainer.h"

namespace focus::train {

std::unique_ptr<Task> make_pretrain_task(const TrainConfig& config, const at::Device& device);

}  // namespace focus::train
