// FIR filters, one per channel.
#pragma once

#include "focus/kernels/fir.h"
#include "lanes.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class T, class L>
void fir_block(const FirForward<T>& a, int64_t c) {
  using V = typename L::Vec;
  constexpr int kRows = 8;
  const int64_t stride = a.channels;
  int64_t t = 0;
  for (; t + kRows <= a.length; t += kRows) {
    V acc[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) acc[i] = zero<V>();
    const T* x = a.x + t * stride + c;
    const T* w = a.taps + c;
    for (int64_t j = 0; j < a.num_taps; ++j, x += stride, w += stride) {
      const V tap = load<V>(w);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) acc[i] += tap * load<V>(x + i * stride);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) store(a.y + (t + i) * stride + c, acc[i]);
  }
  for (; t < a.length; ++t) {
    V acc = zero<V>();
    for (int64_t j = 0; j < a.num_taps; ++j)
      acc += load<V>(a.taps + j * stride + c) * load<V>(a.x + (t + j) * stride + c);
    store(a.y + t * stride + c, acc);
  }
}

template <class T, class L>
void fir_taps_block(const FirTapsGradient<T>& a, int64_t c) {
  using V = typename L::Vec;
  constexpr int kTaps = 8;
  constexpr int64_t kRun = 1024;  // partial sums keep fp32 accurate over long sequences
  const int64_t stride = a.channels;
  for (int64_t j = 0; j < a.num_taps; j += kTaps) {
    const int taps = static_cast<int>(a.num_taps - j < kTaps ? a.num_taps - j : kTaps);
    V total[kTaps];
    for (int i = 0; i < kTaps; ++i) total[i] = zero<V>();
    for (int64_t t0 = 0; t0 < a.length; t0 += kRun) {
      const int64_t t1 = t0 + kRun < a.length ? t0 + kRun : a.length;
      V acc[kTaps];
#pragma GCC unroll 8
      for (int i = 0; i < kTaps; ++i) acc[i] = zero<V>();
      if (taps == kTaps) {
        for (int64_t t = t0; t < t1; ++t) {
          const V g = load<V>(a.dy + t * stride + c);
          const T* x = a.x + (t + j) * stride + c;
#pragma GCC unroll 8
          for (int i = 0; i < kTaps; ++i) acc[i] += g * load<V>(x + i * stride);
        }
      } else {
        for (int64_t t = t0; t < t1; ++t) {
          const V g = load<V>(a.dy + t * stride + c);
          const T* x = a.x + (t + j) * stride + c;
          for (int i = 0; i < taps; ++i) acc[i] += g * load<V>(x + i * stride);
        }
      }
      for (int i = 0; i < taps; ++i) total[i] += acc[i];
    }
    for (int i = 0; i < taps; ++i) {
      T* to = a.dtaps + (j + i) * stride + c;
      store(to, load<V>(to) + total[i]);
    }
  }
}

template <class T>
void fir_forward(const FirForward<T>& args, int64_t begin, int64_t end) {
  int64_t c = begin;
  for (; c + Lanes<T>::count <= end; c += Lanes<T>::count) fir_block<T, Lanes<T>>(args, c);
  for (; c < end; ++c) fir_block<T, Single<T>>(args, c);
}
template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, int64_t begin, int64_t end) {
  int64_t c = begin;
  for (; c + Lanes<T>::count <= end; c += Lanes<T>::count) fir_taps_block<T, Lanes<T>>(args, c);
  for (; c < end; ++c) fir_taps_block<T, Single<T>>(args, c);
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
