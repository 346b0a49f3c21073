// hyena() on the CPU.
#pragma once

#include "focus/ops/hyena.h"

namespace focus::ops {

/// The most taps and modes of an inner filter that the kernels take.
int64_t max_inner_taps_on_cpu();
int64_t max_modes_on_cpu();

/// hyena() for tensors that has_hyena takes. `inner` of modes is [B, N, D] here, and is returned so.
HyenaOutput hyena_on_cpu(const at::Tensor& z_BLC, const HyenaFilters& filters, const at::Tensor& fir,
                         const at::Tensor& inner);

}  // namespace focus::ops
