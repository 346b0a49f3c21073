// Rotary positions. The instruction set is picked at run time (isa.h).
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"

namespace focus::kernels {

/// Turns x [2 half] in place: channels i and i + half by the angle whose cosine and sine [half] are given. In
/// fp32, rounded once. T: float or Bf16.
template <class T>
void rotate(T* x, const float* cosine, const float* sine, int64_t half);

}  // namespace focus::kernels
