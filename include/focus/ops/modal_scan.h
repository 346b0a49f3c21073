// The long filters of the Hyena layers, channels last. Legend: B batch, L length, D channels, N modes.
// On the CPU it runs in focus's kernels (fp32 or fp64); elsewhere in its plain-ATen reference twin, which is
// also the tests' oracle.
#pragma once

#include <ATen/ATen.h>

#include <utility>

namespace focus::ops {

/// Modal IIR filter: s_n[t] = exp(log_poles_n) s_n[t-1] + p[t], y[t] = sum_n residues_n s_n[t], per channel.
/// `p_BLD` [B,L,D]; `log_poles_DN`, `residues_DN` [D,N]; `state_BDN` [B,D,N], undefined = zeros. Returns (y
/// [B,L,D], final state [B,D,N]). Differentiable in all four. Throws ShapeError.
std::pair<at::Tensor, at::Tensor> modal_scan(const at::Tensor& p_BLD, const at::Tensor& log_poles_DN,
                                             const at::Tensor& residues_DN, const at::Tensor& state_BDN);
std::pair<at::Tensor, at::Tensor> modal_scan_reference(const at::Tensor& p_BLD,
                                                       const at::Tensor& log_poles_DN,
                                                       const at::Tensor& residues_DN,
                                                       const at::Tensor& state_BDN);

}  // namespace focus::ops
