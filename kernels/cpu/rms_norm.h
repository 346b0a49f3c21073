// Body of the RMS norm, compiled once per instruction set.
#pragma once

#include "focus/kernels/rms_norm.h"
#include "vector.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class T>
void rms_norm(const RmsNorm<T>& a) {
  using S = Step<T>;
  const T* x = a.x;
  if (a.delta != nullptr) {
    for (int64_t i = 0; i < a.width; ++i) write(widen_one(a.x[i]) + widen_one(a.delta[i]), a.sum + i);
    x = a.sum;
  }
  Floats squares = {};
  int64_t i = 0;
  for (; i + S::inputs <= a.width; i += S::inputs) {
    Floats values[S::parts];
    S::read(x + i, values);
    for (const Floats& v : values) squares += v * v;
  }
  float total = sum_lanes(squares);
  for (; i < a.width; ++i) total += widen_one(x[i]) * widen_one(x[i]);
  const float mean = total / static_cast<float>(a.width);
  const float inverse = 1.0f / (a.eps_inside ? __builtin_sqrtf(mean + a.eps) : __builtin_sqrtf(mean) + a.eps);
  for (i = 0; i < a.width; ++i) {
    float value = widen_one(x[i]) * inverse;
    if (a.eps_inside) {
      T rounded;
      write(value, &rounded);
      value = widen_one(rounded);
    }
    write(value * widen_one(a.scale[i]), a.y + i);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
