// What the ranks of a run add up and agree on.
#pragma once

#include <vector>

#include "focus/distributed/ranks.h"
#include "focus/train/loop/optimizer.h"

namespace focus::train {

/// Each parameter's gradient becomes the sum over the ranks, the same bits on all. One that no rank has stays
/// undefined; one that only some have counts as zero on the others.
void sum_gradients(distributed::Ranks& ranks, const std::vector<Parameter>& parameters);

/// Whether a signal has reached any rank. All ranks then know of it, and end at the same place with the same
/// exit code.
bool interrupted_anywhere(distributed::Ranks& ranks);

/// InternalError when the parameters are not the same bits on all ranks: they would train different models
/// from then on.
void require_same_parameters(distributed::Ranks& ranks, const std::vector<Parameter>& parameters);

}  // namespace focus::train
