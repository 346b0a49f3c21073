// Where a run stands: everything besides tensors that a resumed run, and every other rank, has to know.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "focus/distributed/ranks.h"
#include "focus/train/loop/optimizer.h"
#include "focus/train/run/checkpoint.h"

namespace focus::train {

struct RunPosition {
  int64_t step = 0;     // optimizer steps done, skipped ones included
  int64_t samples = 0;  // training samples consumed: the data cursor
  int64_t bases = 0;
  int64_t skipped = 0;  // steps left out because of a non-finite loss or gradient
  struct Best {
    int64_t step = 0;
    double value = 0;  // of the primary validation figure
  };
  std::optional<Best> best;

  CheckpointState to_state(const std::string& identity) const;
  /// CheckpointError.
  static RunPosition from_state(const CheckpointState& state);

  /// All of it as whole numbers, exactly, to be sent to other ranks.
  std::vector<int64_t> pack() const;
  static RunPosition unpack(const std::vector<int64_t>& packed);
};

/// What a run at `position` needs to go on; the tensors share the optimizer's memory. `identity` names the
/// backbone.
Checkpoint make_checkpoint(const RunPosition& position, const std::string& identity, const AdamW& optimizer);
/// Puts parameters and optimizer where the checkpoint was made. CheckpointError naming `where`: another
/// backbone or other tensors.
RunPosition apply_checkpoint(const Checkpoint& checkpoint, const std::string& identity, AdamW& optimizer,
                             const std::string& where);
/// Copies tensors into the optimizer's parameters. CheckpointError, as assign_tensors.
void assign_parameters(const std::map<std::string, at::Tensor>& loaded, const AdamW& optimizer,
                       const std::string& where);

/// Rank 0's position, parameters and optimizer state become everybody's.
void share_state(distributed::Ranks& ranks, RunPosition& position, AdamW& optimizer);

}  // namespace focus::train
