// Rounding to FP8 on a CUDA device: raw device pointers, the caller's stream, 64-bit sizes.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// y = round_e4m3(x scale): OCP FP8 E4M3 (no infinities), to nearest with ties to even, saturating at +-448;
/// the product is rounded to fp32 first. T: float or Bf16. Throws InternalError with CUDA's reason when the
/// launch fails.
template <class T>
void quantise_e4m3(const T* x, float scale, uint8_t* y, int64_t size, void* stream);

}  // namespace focus::kernels::cuda
