// How kernels that work channel by channel are spread over threads.
#pragma once

#include <cstdint>

namespace focus::kernels {

/// Channels are best split at multiples of this.
inline constexpr int64_t kChannelBlock = 16;

}  // namespace focus::kernels
