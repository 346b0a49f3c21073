// Finite impulse response filters, one per channel, on the CPU: fp32 and fp64, channels last. Works on a
// range of channels, so that the caller can spread channel blocks over threads; results do not depend on how
// the range is split.
#pragma once

#include <cstdint>

namespace focus::kernels {

template <class T>
struct FirForward {
  const T* x;     // [length + num_taps - 1, channels]: the left context comes first
  const T* taps;  // [num_taps, channels]
  T* y;           // [length, channels]
  int64_t length, num_taps, channels;
};

template <class T>
struct FirTapsGradient {
  const T* x;   // [length + num_taps - 1, channels]
  const T* dy;  // [length, channels]
  T* dtaps;     // [num_taps, channels]; added to
  int64_t length, num_taps, channels;
};

/// y[t,c] = sum_j taps[j,c] x[t+j,c], channels [begin, end).
template <class T>
void fir_forward(const FirForward<T>& args, int64_t begin, int64_t end);
/// dtaps[j,c] += sum_t dy[t,c] x[t+j,c].
template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, int64_t begin, int64_t end);

}  // namespace focus::kernels
