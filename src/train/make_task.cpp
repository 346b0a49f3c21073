#include "focus/core/error.h"
#include "focus/train/trainer.h"
#include "pretrain.h"

namespace focus::train {

std::unique_ptr<Task> make_task(const TrainConfig& config, const at::Device& device) {
  if (config.task == TaskKind::pretrain) return make_pretrain_task(config, device);
  fail<ConfigError>("adapter");
}

}  // namespace focus::train
