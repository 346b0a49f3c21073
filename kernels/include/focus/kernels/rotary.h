// Rotary positions. The instruction set is picked at run time (isa.h).
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"

namespace focus::kernels {

/// Turns a row [2 half], in place where `to` is `from`: channels i and i + half by the angle whose cosine and
/// sine [half] are given. In fp32, each product rounded, then to T. T: float or Bf16.
template <class T>
void rotate(const T* from, T* to, const float* cosine, const float* sine, int64_t half);

}  // namespace focus::kernels
