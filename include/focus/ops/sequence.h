// Differentiable sequence operators of the Hyena layers, channels last. Legend: B batch, L length, C or D channels, K taps, N modes.
// On the CPU they run in focus's kernels (fp32 or fp64); elsewhere in their plain-ATen reference twins, which are also the tests' oracle.
#pragma once

#include <ATen/ATen.h>

#include <utility>

namespace focus::ops {

/// Causal depthwise FIR, as a cross-correlation: y[b,t,c] = sum_j taps[j,c] x[b,t+j,c].
/// `x_BTC` is [B, L+K-1, C]: K-1 rows of left context first; `taps_KC` is [K, C], the last tap meets the newest input. Both fp32 or
/// both fp64, same device. Returns [B, L, C]. Differentiable in both. Throws ShapeError.
at::Tensor causal_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC);
at::Tensor causal_fir_reference(const at::Tensor& x_BTC, const at::Tensor& taps_KC);

/// Modal IIR filter: s_n[t] = exp(log_poles_n) s_n[t-1] + p[t], y[t] = sum_n residues_n s_n[t], per channel.
/// `p_BLD` [B,L,D]; `log_poles_DN`, `residues_DN` [D,N]; `state_BDN` [B,D,N], undefined = zeros. Returns (y [B,L,D], final state [B,D,N]).
/// Differentiable in all four. Throws ShapeError.
std::pair<at::Tensor, at::Tensor> modal_scan(const at::Tensor& p_BLD, const at::Tensor& log_poles_DN, const at::Tensor& residues_DN,
                                             const at::Tensor& state_BDN);
std::pair<at::Tensor, at::Tensor> modal_scan_reference(const at::Tensor& p_BLD, const at::Tensor& log_poles_DN,
                                                       const at::Tensor& residues_DN, const at::Tensor& state_BDN);

/// x / (rms(x) + eps) * scale over the last dimension; the epsilon stands outside the root, as in Evo-2. Computed in fp32 (fp64 for fp64
/// input) and rounded once. `scale` [D]. Differentiable in both.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps);

}  // namespace focus::ops
