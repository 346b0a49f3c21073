#include "run/run_position.h"

#include <bit>

#include "focus/core/error.h"

namespace focus::train {

CheckpointState RunPosition::to_state(const std::string& identity) const {
  CheckpointState state;
  state.step = step;
  state.samples = samples;
  state.extra = {{"bases", bases}, {"skipped", skipped}, {"identity", identity}};
  if (best) {
    state.extra["best_step"] = best->step;
    state.extra["best_value"] = best->value;
  }
  return state;
}

RunPosition RunPosition::from_state(const CheckpointState& state) {
  RunPosition position;
  position.step = state.step;
  position.samples = state.samples;
  position.bases = state.get<int64_t>("bases");
  // Checkpoints of versions that never skipped a step have no count.
  if (state.extra.contains("skipped")) position.skipped = state.get<int64_t>("skipped");
  if (state.extra.contains("best_step"))
    position.best = {state.get<int64_t>("best_step"), state.get<double>("best_value")};
  return position;
}

std::vector<int64_t> RunPosition::pack() const {
  return {step,
          samples,
          bases,
          skipped,
          best ? 1 : 0,
          best ? best->step : 0,
          best ? std::bit_cast<int64_t>(best->value) : 0};
}

RunPosition RunPosition::unpack(const std::vector<int64_t>& packed) {
  FOCUS_CHECK(packed.size() == 7, "a packed position has ", packed.size(), " numbers");
  RunPosition position{packed[0], packed[1], packed[2], packed[3], std::nullopt};
  if (packed[4] != 0) position.best = {packed[5], std::bit_cast<double>(packed[6])};
  return position;
}

void assign_parameters(const std::map<std::string, at::Tensor>& loaded, const AdamW& optimizer,
                       const std::string& where) {
  std::vector<std::pair<std::string, at::Tensor>> own;
  for (const auto& parameter : optimizer.parameters()) own.emplace_back(parameter.name, parameter.tensor);
  assign_tensors(loaded, own, where);
}

Checkpoint make_checkpoint(const RunPosition& position, const std::string& identity, const AdamW& optimizer) {
  Checkpoint checkpoint;
  checkpoint.state = position.to_state(identity);
  for (const auto& parameter : optimizer.parameters())
    checkpoint.trainable.emplace(parameter.name, parameter.tensor.detach());
  for (const auto& [name, tensor] : optimizer.state_tensors()) checkpoint.optimizer.emplace(name, tensor);
  return checkpoint;
}

RunPosition apply_checkpoint(const Checkpoint& checkpoint, const std::string& identity, AdamW& optimizer,
                             const std::string& where) {
  const auto& saved = checkpoint.state.get<std::string>("identity");
  if (saved != identity)
    fail<CheckpointError>("'", where, "' belongs to another backbone (", saved, ", now ", identity, ")");
  assign_parameters(checkpoint.trainable, optimizer, where);
  optimizer.load_state(checkpoint.optimizer);
  return RunPosition::from_state(checkpoint.state);
}

void share_state(distributed::Ranks& ranks, RunPosition& position, AdamW& optimizer) {
  if (ranks.size() == 1) return;
  position = RunPosition::unpack(ranks.from_first(position.pack()));
  std::vector<at::Tensor> tensors;
  for (const auto& parameter : optimizer.parameters()) tensors.push_back(parameter.tensor);
  for (const auto& [name, tensor] : optimizer.state_tensors()) tensors.push_back(tensor);
  ranks.broadcast(tensors);
}

}  // namespace focus::train
