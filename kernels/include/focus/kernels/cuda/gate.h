// Gates on a CUDA device: raw device pointers, the caller's stream, 64-bit sizes and strides. T: float or
// Bf16; all between is fp32, rounded once.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// act(x) = x; x Phi(x), the exact GELU; x / (1 + exp(-x)).
enum class Gate { identity, gelu, silu };

/// Rows of `width` contiguous values, `stride` values apart.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
};

/// y = act(a) b, [rows, width]. Throw InternalError with CUDA's reason when the launch fails.
template <class T>
void gate(Gate act, Rows<const T> a, Rows<const T> b, Rows<T> y, int64_t rows, int64_t width, void* stream);
/// da = dy b act'(a), db = dy act(a); each may be dy, a or b.
template <class T>
void gate_gradient(Gate act, Rows<const T> a, Rows<const T> b, Rows<const T> dy, Rows<T> da, Rows<T> db,
                   int64_t rows, int64_t width, void* stream);

}  // namespace focus::kernels::cuda
