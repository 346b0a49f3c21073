// Bodies of the few-row linear kernel, compiled once per instruction set.
#pragma once

#include "vector.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class W, class X>
void linear_pack(const X* x, int64_t inputs, float* packed) {
  using S = Step<W>;
  const int64_t padded = linear_padded(inputs);
  int64_t begin = 0;
  if constexpr (sizeof(W) == sizeof(X)) {
    for (; begin + S::inputs <= inputs; begin += S::inputs) {
      Floats parts[S::parts];
      S::read(x + begin, parts);
      __builtin_memcpy(packed + begin, parts, sizeof parts);
    }
  }
  for (; begin < padded; begin += S::inputs) {
    for (int i = 0; i < S::inputs; ++i)
      packed[begin + packed_index<W>(i)] = begin + i < inputs ? widen_one(x[begin + i]) : 0.0f;
  }
}

template <class W, int O, int M>
void linear_tile(const Linear<W>& a, int64_t output, int64_t row) {
  const W* w[O];
  const float* x[M];
  for (int o = 0; o < O; ++o) w[o] = a.weight + (output + o) * a.inputs;
  for (int m = 0; m < M; ++m) x[m] = a.x + (row + m) * linear_padded(a.inputs);
  Floats sums[O][M];
  dot_tile<W, O, M, true>(w, x, a.inputs, sums);
  for (int o = 0; o < O; ++o) {
    const float bias = a.bias != nullptr ? a.bias[output + o] : 0.0f;
    for (int m = 0; m < M; ++m) a.y[(row + m) * a.outputs + output + o] = sum_lanes(sums[o][m]) + bias;
  }
}

template <class W, int O>
void linear_outputs(const Linear<W>& a, int64_t output) {
  int64_t row = 0;
  for (; row + kTileRows <= a.rows; row += kTileRows) linear_tile<W, O, kTileRows>(a, output, row);
  switch (a.rows - row) {
    case 1:
      return linear_tile<W, O, 1>(a, output, row);
    case 2:
      return linear_tile<W, O, 2>(a, output, row);
    case 3:
      return linear_tile<W, O, 3>(a, output, row);
    default:
      return;
  }
}

template <class W>
void linear(const Linear<W>& args, int64_t begin, int64_t end) {
  int64_t output = begin;
  for (; output + kTileKeys <= end; output += kTileKeys) linear_outputs<W, kTileKeys>(args, output);
  for (; output < end; ++output) linear_outputs<W, 1>(args, output);
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
