// FIR filters of the Hyena layers, channels last. Legend: B batch, L length, C channels, K taps.
// On the CPU it runs in focus's kernels (fp32 or fp64); elsewhere in its plain-ATen reference twin, which is
// also the tests' oracle.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// Causal depthwise FIR, as a cross-correlation: y[b,t,c] = sum_j taps[j,c] x[b,t+j,c].
/// `x_BTC` is [B, L+K-1, C]: K-1 rows of left context first; `taps_KC` is [K, C], the last tap meets the
/// newest input. Both fp32 or both fp64, same device. Returns [B, L, C]. Differentiable in both. Throws
/// ShapeError.
at::Tensor causal_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC);
at::Tensor causal_fir_reference(const at::Tensor& x_BTC, const at::Tensor& taps_KC);

}  // namespace focus::ops
