#include "focus/train/loop/trainer.h"

#include "tasks/adapter_task.h"
#include "tasks/pretrain.h"

namespace focus::train {

std::unique_ptr<Task> make_task(const TrainConfig& config, const at::Device& device) {
  return config.task == TaskKind::pretrain ? make_pretrain_task(config, device) : make_adapter_task(config);
}

}  // namespace focus::train
