// What rows.cpp has.
#pragma once

#include "focus/kernels/rms_norm.h"
#include "focus/kernels/rotary.h"

namespace focus::kernels::FOCUS_ISA {

template <class T>
void rms_norm(const RmsNorm<T>& a);
template <class T>
void rotate(const T* from, T* to, const float* cosine, const float* sine, int64_t half);

}  // namespace focus::kernels::FOCUS_ISA
