// Evo-2's norm.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// x / (rms(x) + eps) * scale over the last dimension; the epsilon stands outside the root, as in Evo-2.
/// Computed in fp32 (fp64 for fp64 input) and rounded once. `scale` [D]. Differentiable in both.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps);

}  // namespace focus::ops
