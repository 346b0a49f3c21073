#include "focus/train/loop/task.h"

#include <algorithm>

#include "tasks/task_kinds.h"

namespace focus::train {

Batch make_batch(const std::vector<data::Sample>& samples, const model::Vocabulary& vocabulary,
                 const at::Device& device) {
  std::size_t length = 0;
  for (const auto& sample : samples) length = std::max(length, sample.letters.size());
  const auto rows = static_cast<int64_t>(samples.size()), columns = static_cast<int64_t>(length);
  const int64_t padding =
      vocabulary.unknown_base != model::Vocabulary::kNone ? vocabulary.unknown_base : vocabulary.bases[0];
  Batch batch{at::full({rows, columns}, padding, at::kLong), at::zeros({rows, columns}),
              at::full({rows, columns}, -1, at::kInt)};
  for (int64_t r = 0; r < rows; ++r) {
    const auto& sample = samples[static_cast<std::size_t>(r)];
    const auto tokens = vocabulary.encode(sample.letters, sample.name, sample.begin);
    std::copy(tokens.begin(), tokens.end(), batch.tokens.mutable_data_ptr<int64_t>() + r * columns);
    std::copy(sample.weights.begin(), sample.weights.end(),
              batch.weights.mutable_data_ptr<float>() + r * columns);
    std::copy(sample.copy_offset.begin(), sample.copy_offset.end(),
              batch.copy_offset.mutable_data_ptr<int32_t>() + r * columns);
  }
  return {batch.tokens.to(device), batch.weights.to(device), batch.copy_offset.to(device)};
}

std::unique_ptr<Task> make_task(const TrainConfig& config, const at::Device& device) {
  return config.task == TaskKind::pretrain ? make_pretrain_task(config, device) : make_adapter_task(config);
}

}  // namespace focus::train
