// Ranks over LibTorch's process groups.
#pragma once

#include <memory>

#include "focus/distributed/ranks.h"

namespace focus::distributed {

std::unique_ptr<Ranks> connect_ranks(const RankEnvironment& environment, const at::Device& device,
                                     const JoinOptions& join);

}  // namespace focus::distributed
