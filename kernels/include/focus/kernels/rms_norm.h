// The RMS norm of one row. The instruction set is picked at run time (isa.h).
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"

namespace focus::kernels {

/// y = x / (rms(x) + eps) * scale or, with `eps_inside`, x / sqrt(mean(x^2) + eps), rounded to T, times
/// scale; in fp32. T: float or Bf16. All pointers are to [width].
template <class T>
struct RmsNorm {
  const T* x;
  const T* delta;  // or null: x + delta, rounded to T, is written to `sum` and normed
  const T* scale;
  T* sum;  // null without delta
  T* y;
  float* root;  // or null: receives rms(x); not with eps_inside
  int64_t width;
  float eps;
  bool eps_inside;
};

template <class T>
void rms_norm(const RmsNorm<T>& args);

}  // namespace focus::kernels
