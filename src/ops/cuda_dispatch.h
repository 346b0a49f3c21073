// The one place where the build with CUDA differs: launches of focus's own CUDA kernels.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// Whether causal_fir on these tensors, both of one dtype, has a CUDA kernel: fp32 on one CUDA device, a
/// batch that one launch can take, in a build with CUDA.
bool has_cuda_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC);
at::Tensor cuda_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC);

}  // namespace focus::ops
