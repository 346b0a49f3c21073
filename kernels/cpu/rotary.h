// Body of the rotation, compiled once per instruction set.
#pragma once

#include "focus/kernels/rotary.h"
#include "vector.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class T>
void rotate(T* x, const float* cosine, const float* sine, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = widen_one(x[i]), b = widen_one(x[i + half]);
    write(a * cosine[i] - b * sine[i], x + i);
    write(a * sine[i] + b * cosine[i], x + i + half);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
