// The product of activations with a weight matrix.
#pragma once

#include <ATen/ATen.h>

#include "focus/ops/gate.h"

namespace focus::ops {

/// x W^T + b: x [.., in], weight [out, in], bias [out] or undefined; returns [.., out] in x's type. Sums are
/// fp32 (fp64 for fp64), and the bias is added before the only rounding. x may be fp32 where the weights are
/// bf16: they are then widened, x is not rounded. Differentiable in x, weight and bias. Throws ShapeError.
///
/// On the CPU and without gradients, few rows (as in decoding) run in focus's kernel, which streams the
/// weights once; so does any number of rows of bf16 on a processor without bf16 products, where LibTorch's
/// linear is slow. A row's result then depends neither on the number of threads nor on the other rows.
///
/// So do up to 8 rows of bf16 on a device with kernels of focus's own, where the residual, if there is one,
/// is added before the only rounding. More rows and gradients are cuBLAS's.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& residual = {});

/// linear() with some rows of a larger matrix: `rows` [pieces, n, in] a view of them, bias [pieces, n] or
/// undefined; returns [.., pieces * n]. Where they do not lie beside each other the product takes a copy of
/// them, which does not outlive the call: the backward pass makes its own. Differentiable in everything.
at::Tensor linear_of_rows(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& bias);

/// act(x W^T + b) (x U^T + c), differentiable in everything; few rows on a device as above, in one pass over
/// both matrices and with one rounding.
at::Tensor gated_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& up, const at::Tensor& up_bias, Gate act);

/// The same in plain ATen.
at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace focus::ops
