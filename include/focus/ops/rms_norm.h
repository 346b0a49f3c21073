// RMS norms.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// Where the norm's epsilon stands. outside (Evo-2): x / (rms(x) + eps) * scale, rounded once. inside
/// (Llama): x / sqrt(mean(x^2) + eps) in fp32, rounded to x's type, then times scale in that type.
enum class Epsilon { outside, inside };

/// The norm over the last dimension, in fp32 (fp64 for fp64 input). `scale` [D]. Differentiable in both. One
/// pass over memory on a device with kernels of focus's own, and on the CPU with epsilon outside.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps,
                    Epsilon place = Epsilon::outside);

struct SummedNorm {
  at::Tensor sum, normed;
};
/// x + delta and its norm, in one pass where rms_norm() takes one; on the CPU without gradients only.
SummedNorm add_rms_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& scale, double eps,
                        Epsilon place = Epsilon::outside);

}  // namespace focus::ops
