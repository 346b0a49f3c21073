// What a gate does to its first factor.
#pragma once

#include "focus/kernels/cuda/gate.h"
#include "platform.h"

namespace focus::kernels::cuda {

/// act(x), and its derivative.
struct Activated {
  float value, slope;
};

__device__ __forceinline__ Activated activate(Gate act, float x) {
  if (act == Gate::gelu) {
    const float cdf = 0.5f * (1.f + erff(x * 0.70710678f));
    return {x * cdf, cdf + x * 0.39894228f * expf(-0.5f * x * x)};
  }
  if (act == Gate::silu) {
    const float sigmoid = 1.f / (1.f + expf(-x));
    return {x * sigmoid, sigmoid * (1.f + x * (1.f - sigmoid))};
  }
  return {x, 1.f};
}

}  // namespace focus::kernels::cuda
