// Products of few rows with a weight matrix on a CUDA device, as in decoding: bound by reading the weights,
// which are read once. Raw device pointers, the caller's stream, 64-bit sizes.
#pragma once

#include <cstdint>

#include "focus/kernels/cuda/gate.h"
#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// The most rows of a call: what one tensor-core instruction takes.
inline constexpr int64_t kFewRows = 8;

/// y = x W^T + bias + residual or, with a second matrix, y = act(x W^T + bias) (x U^T + up_bias) + residual.
/// Sums are fp32, and y is rounded once; a row of y does not depend on the other rows. Arrays contiguous but
/// for the rows of x.
struct FewRows {
  const Bf16* x;         // [rows, inputs], rows x_stride values apart
  const Bf16* weight;    // [outputs, inputs]
  const Bf16* bias;      // [outputs] or null
  const Bf16* up;        // [outputs, inputs] or null
  const Bf16* up_bias;   // [outputs] or null
  const Bf16* residual;  // [rows, outputs] or null; may be y
  Bf16* y;               // [rows, outputs]
  int64_t rows, x_stride, inputs, outputs;
  Gate act;  // with a second matrix only
};

/// Throws InternalError with CUDA's reason when the launch fails. rows <= kFewRows.
void few_rows(const FewRows& args, void* stream);

}  // namespace focus::kernels::cuda
