// FIR filters on a CUDA device: raw device pointers, the caller's stream, 64-bit sizes. T: float or Bf16;
// sums are fp32. Errors: InternalError with CUDA's reason when a launch fails.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// A filter for every `run` channels in turn: tap j, oldest first, of channel c is
/// taps[c / run * filter_stride + j * tap_stride].
template <class T>
struct Taps {
  const T* taps;
  int64_t num_taps, tap_stride, filter_stride, run;
};

/// y[b,t,c] = sum_j tap[j,c] x[b,t+j,c] + skip[c] x[b, t + num_taps - 1 - skip_lag, c]
template <class T>
struct Fir {
  const T* x;  // [batch, length + num_taps - 1, channels]; rows lie dense, batches x_batch values apart
  int64_t x_batch;
  Taps<T> filter;
  const T* skip;  // [channels]; may be null
  int64_t skip_lag;
  T* y;  // [batch, length, channels], dense
  int64_t batch, length, channels;
};

/// On tensor cores, as blocks of a Toeplitz matrix, where T is Bf16, 16 or a multiple of 16 channels share a
/// filter, and there are 16 to 129 taps: products are exact, sums fp32.
template <class T>
void fir_forward(const Fir<T>& args, void* stream);

/// partial[b * fir_stretches(length) + s, j, c] = the part of sum_t dy[b,t,c] x[b,t+j,c] from stretch s of
/// the rows.
template <class T>
struct FirTapsGradient {
  const T* x;  // as above
  int64_t x_batch;
  const T* dy;  // [batch, length, channels]; batches dy_batch values apart
  int64_t dy_batch;
  float* partial;  // [batch * fir_stretches(length), num_taps, channels]
  int64_t batch, length, num_taps, channels;
};
int64_t fir_stretches(int64_t length);
template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, void* stream);

}  // namespace focus::kernels::cuda
