// FIR filters on a CUDA device: raw device pointers, the caller's stream, 64-bit sizes.
#pragma once

#include <cstdint>

namespace focus::kernels::cuda {

/// y[b,t,c] = sum_j taps[j,c] x[b,t+j,c]; x [batch, length + num_taps - 1, channels], taps [num_taps, channels], y [batch, length,
/// channels], all contiguous fp32 on the current device. Throws InternalError with CUDA's reason when the launch fails.
void fir_forward(const float* x, const float* taps, float* y, int64_t batch, int64_t length, int64_t num_taps, int64_t channels,
                 void* stream);

}  // namespace focus::kernels::cuda
