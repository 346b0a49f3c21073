// Linear layers as FP8 hardware computes them, on any hardware: input and weight are scaled, rounded to e4m3
// and multiplied exactly in a wider type.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// round_e4m3(t * scale), saturating at +-448 (OCP FP8 E4M3, no infinities), as float8_e4m3fn.
at::Tensor to_e4m3(const at::Tensor& t, double scale);

/// y = (e4m3(x * input_scale) e4m3(W * weight_scale)^T) / (input_scale * weight_scale) + bias, accumulated in
/// fp32 (fp64 for fp64 input) and rounded once to x's type. `weight_e4m3` [out, in] is to_e4m3(W,
/// weight_scale); `bias` [out] or undefined. The gradient reaches x only (straight through the rounding).
/// A card whose units multiply e4m3 does so where both sizes of the weight are multiples of 16.
at::Tensor fp8_linear(const at::Tensor& x, const at::Tensor& weight_e4m3, const at::Tensor& bias,
                      double input_scale, double weight_scale);

}  // namespace focus::ops
