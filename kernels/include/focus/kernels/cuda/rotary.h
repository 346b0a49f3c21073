// Rotary positions on a CUDA device: raw device pointers, the caller's stream, 64-bit sizes and strides.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// [batch, heads, length, dim] in values of T, the last dimension contiguous.
struct HeadStrides {
  int64_t batch, head, position;
};

template <class T>
struct RotaryPart {
  const T* in;
  T* out;  // may be `in`
  HeadStrides in_strides, out_strides;
  int64_t heads;  // 0: no such part
};

/// Turns each pair (x_i, x_{i + dim/2}) of queries and keys by position / scaling * inv_freq_i, in fp32 with
/// one rounding at the end. The angle is rounded to fp32 twice, as the CPU rounds it (position / scaling, and
/// the product), and from there on reduced without loss. T: float or Bf16; P: int64_t or float.
template <class T, class P>
struct Rotary {
  RotaryPart<T> part[2];
  const P* positions;     // [length]
  const float* inv_freq;  // [dim / 2]
  int64_t batch, length, dim;
  float scaling;
  bool backwards;  // turns the other way: the gradient
};

/// Throws InternalError with CUDA's reason when the launch fails.
template <class T, class P>
void rotary(const Rotary<T, P>& args, void* stream);

}  // namespace focus::kernels::cuda
