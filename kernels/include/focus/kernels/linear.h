// y = x W^T for few rows of x: the weights are read once and in order, so that the run time is the time to
// stream them from memory. Weights are fp32 or bf16 (as raw 16-bit words), sums are fp32. The instruction set
// is picked at run time (cpu.h).
#pragma once

#include <cstdint>

namespace focus::kernels {

/// The bits of a bfloat16.
using Bf16 = uint16_t;

/// A kernel reads its rows of x in an order of its own, padded to a multiple of this many values.
inline constexpr int64_t kLinearPad = 32;
inline constexpr int64_t linear_padded(int64_t inputs) {
  return (inputs + kLinearPad - 1) / kLinearPad * kLinearPad;
}

/// Ranges of outputs are best split at multiples of this.
inline constexpr int64_t kLinearGroup = 4;

template <class W>
struct Linear {
  const W* weight;    // [outputs, inputs]
  const float* x;     // [rows, linear_padded(inputs)], written by linear_pack<W, X>
  const float* bias;  // [outputs] or null
  float* y;           // [rows, outputs]
  int64_t rows, inputs, outputs;
};

/// Widens one row of x to fp32 and puts it in the order that weights of type W are read in. X: float or Bf16.
template <class W, class X>
void linear_pack(const X* x, int64_t inputs, float* packed);

/// y[m,o] = sum_i x[m,i] w[o,i] + bias[o] for o in [begin, end). A sum has the same order whatever the range
/// and the number of rows.
template <class W>
void linear(const Linear<W>& args, int64_t begin, int64_t end);

}  // namespace focus::kernels
