// Modes and their states as the kernels take them.
#pragma once

#include "cuda_kernels.h"
#include "focus/kernels/cuda/modal_scan.h"

namespace focus::ops {

inline DeviceKernels::Modes contiguous(const DeviceKernels::Modes& m) {
  return {m.log_poles_DN.contiguous(), m.residues_DN.contiguous(),
          m.skip_D.defined() ? m.skip_D.contiguous() : m.skip_D};
}

/// The states before each stretch of a scan, [B, S, N, D]: the first is the initial one. A single stretch
/// writes none, so it gets the given tensor itself.
inline at::Tensor states_from(const at::Tensor& initial_BND, int64_t length) {
  const int64_t stretches = kernels::cuda::scan_stretches(length);
  if (stretches == 1) return initial_BND.contiguous().unsqueeze(1);
  const at::Tensor states = at::empty(
      {initial_BND.size(0), stretches, initial_BND.size(1), initial_BND.size(2)}, initial_BND.options());
  states.select(1, 0).copy_(initial_BND);
  return states;
}

inline kernels::cuda::Modes kernel_modes(const DeviceKernels::Modes& m, const at::Tensor& states,
                                         const at::Tensor& final) {
  return {data<float>(m.log_poles_DN), data<float>(m.residues_DN), written<float>(states),
          written<float>(final), m.log_poles_DN.size(1)};
}

}  // namespace focus::ops
