// Ranks over LibTorch's process groups.
#pragma once

#include <memory>

#include "focus/train/ranks.h"

namespace focus::train {

std::unique_ptr<Ranks> connect_ranks(const RankEnvironment& environment, const at::Device& device, int64_t timeout_seconds);

}  // namespace focus::train
