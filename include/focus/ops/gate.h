// The gate of a multilayer perceptron.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// act(x) = x; x Phi(x), the exact (erf) GELU; x / (1 + exp(-x)).
enum class Gate { identity, gelu, silu };

/// act(a) b, of the same shape. Differentiable in both. On a device with kernels of focus's own one pass over
/// memory, in fp32 with one rounding; elsewhere act(a) is rounded too.
at::Tensor gated(const at::Tensor& a, const at::Tensor& b, Gate act);

}  // namespace focus::ops
