// Adding losses and gradients over ranks.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "focus/distributed/ranks.h"
#include "focus/train/loop/optimizer.h"

namespace focus::train {

/// Each parameter's gradient becomes the sum over the ranks, the same bits on all. One that no rank has stays undefined; one that only some
/// have counts as zero on the others.
void sum_gradients(distributed::Ranks& ranks, const std::vector<Parameter>& parameters);

/// Loss and its parts (the same names on all ranks) become their sums over the ranks.
void sum_losses(distributed::Ranks& ranks, double& loss, std::map<std::string, double>& parts);

/// InternalError when the parameters are not the same bits on all ranks: they would train different models from then on.
void require_same_parameters(distributed::Ranks& ranks, const std::vector<Parameter>& parameters);

}  // namespace focus::train
