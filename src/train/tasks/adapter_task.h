// Training of a FOCUS adapter on a frozen backbone.
#pragma once

#include <memory>

#include "focus/train/loop/trainer.h"

namespace focus::train {

std::unique_ptr<Task> make_adapter_task(const TrainConfig& config);

}  // namespace focus::train
