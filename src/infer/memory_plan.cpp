#include "focus/infer/memory_plan.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"
#include "focus/ops/device_memory.h"

namespace focus::infer {
namespace {

constexpr int64_t kSmallestChunk = 16;
// Rows of logits that the scorer holds at the same time, in the model's type, in fp32 and as
// log-probabilities.
constexpr int64_t kLogitRows = 1024;

}  // namespace

int64_t available_memory(const at::Device& device) {
  if (!device.is_cpu()) return ops::free_device_bytes(device);
  return read_system_memory().usable();
}

int64_t largest_chunk(const model::Backbone& model) {
  if (!model.device().is_cpu()) return kLargestChunk;
  return model.shape().width < 1024 ? 1024 : 2048;
}

MemoryPlan plan_memory(const model::Backbone& model, const compress::CompressedModel* compressed,
                       int64_t length, int64_t chunk, int64_t available_bytes, int64_t largest) {
  MemoryPlan plan;
  plan.length = length;
  plan.available_bytes = available_bytes;
  for (const auto& parameter : model.parameters())
    plan.weight_bytes += static_cast<int64_t>(parameter.nbytes());
  int64_t per_token = 0;
  for (int64_t i = 0; i < model.num_blocks(); ++i) {
    plan.state_bytes += model.block(i).state_bytes();
    per_token = std::max(per_token, model.block(i).workspace_bytes());
  }
  const auto& shape = model.shape();
  const auto element = static_cast<int64_t>(at::elementSize(model.dtype()));
  if (compressed != nullptr) {
    const auto use = compressed->planned_use(length);
    plan.kept_bytes = use.retained_bytes;
    plan.far_bytes = use.far_bytes;
    plan.far_beside_model = compressed->config().far.place == compress::FarPlace::model;
    // The window is open up to its last base; adding to it makes a copy of what it holds.
    plan.open_bytes =
        2 * compressed->planned_use(std::min(length, compressed->plan().window(0).size() - 1)).open_bytes;
  } else {
    const auto layers = static_cast<int64_t>(model.attention_blocks().size());
    plan.kept_bytes = layers * 2 * shape.num_kv_heads * shape.head_dim * element * length;
  }
  const auto workspace = [&](int64_t rows) {
    const int64_t logits =
        std::min(rows, kLogitRows) * shape.vocab_size * (element + 3 * static_cast<int64_t>(sizeof(float)));
    return rows * per_token + rows * shape.width * element + logits;
  };
  if (chunk > 0) {
    plan.chunk = std::min(chunk, std::max<int64_t>(length, 1));
  } else {
    const int64_t free_bytes = available_bytes - plan.needed_bytes();
    plan.chunk = kSmallestChunk;
    while (2 * plan.chunk <= largest && plan.chunk < length && workspace(2 * plan.chunk) <= free_bytes / 2)
      plan.chunk *= 2;
  }
  plan.workspace_bytes = workspace(plan.chunk);
  return plan;
}

std::string MemoryPlan::describe() const {
  return concat("memory plan for ", format_count(length), " bases in chunks of ", format_count(chunk),
                ": weights ", format_bytes(weight_bytes), ", state ", format_bytes(state_bytes),
                ", kept keys and values ", format_bytes(kept_bytes),
                open_bytes > 0 ? concat(", open window ", format_bytes(open_bytes)) : std::string(),
                far_bytes > 0 ? concat(", far memory ", format_bytes(far_bytes)) : std::string(),
                ", workspace ", format_bytes(workspace_bytes), "; ", format_bytes(needed_bytes()),
                " beside the weights, ", format_bytes(available_bytes), " free");
}

}  // namespace focus::infer
