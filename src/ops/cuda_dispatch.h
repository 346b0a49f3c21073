// The one place where the build with CUDA differs: launches of focus's own CUDA kernels.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// Whether causal_fir on these tensors has a CUDA kernel (both fp32 on the same CUDA device, in a build with CUDA).
bool has_cuda_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC);
at::Tensor cuda_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC);

}  // namespace focus::ops
