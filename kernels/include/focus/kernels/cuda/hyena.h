// A Hyena mixer in one pass over memory on a CUDA device: 3-tap filter, split into x2, x1, v, p = x1 v, inner
// filter, gate. Raw device pointers, the caller's stream, 64-bit sizes. T: float or Bf16; sums are fp32, and
// x2, x1, v, p, the inner filter's outputs and y are rounded to T, as on the CPU. Errors: InternalError with
// CUDA's reason when a launch fails.
#pragma once

#include "focus/kernels/cuda/fir.h"
#include "focus/kernels/cuda/modal_scan.h"

namespace focus::kernels::cuda {

template <class T>
struct HyenaInput {
  const T* z;  // [batch, length, 3 channels]: x2, x1, v of a channel beside each other
  int64_t z_batch, z_row;
  const T* before;  // [batch, 2, 3 channels], the rows of z before; null: zeros
  T* last;          // [batch, 2, 3 channels], the rows that the next chunk has before it; null: not wanted,
                    // which hyena_fir does not allow
  const T* taps;    // [3 channels, 3], newest last
  int64_t batch, length, channels;
};

/// The most taps of an inner filter.
inline constexpr int64_t kMaxInnerTaps = 129;

template <class T>
struct InnerFir {
  Taps<T> filter;   // up to 8 taps in registers; on tensor cores as fir_forward
  const T* skip;    // [channels]; may be null
  const T* before;  // [batch, num_taps - 1, channels], the values of p before; null: zeros
  T* last;          // [batch, num_taps - 1, channels], those that the next chunk has before it
};
/// y[t] = x2[t] (fir(p)[t] + skip p[t]); y [batch, length, channels].
template <class T>
void hyena_fir(const HyenaInput<T>& in, const InnerFir<T>& inner, T* y, void* stream);

/// y[t] = x2[t] (modal_scan(p)[t] + skip p[t]).
template <class T>
void hyena_scan(const HyenaInput<T>& in, const Modes& modes, const T* skip, T* y, void* stream);

/// What the gradient of the inner filter needs: p, and dy x2, each [batch, length, channels] with batches the
/// given numbers of values apart.
template <class T>
void hyena_split(const HyenaInput<T>& in, const T* dy, T* p, int64_t p_batch, T* dinner, int64_t dinner_batch,
                 void* stream);

/// From dy, the inner filter's outputs with skip, and the gradient of p (batches dp_batch values apart): the
/// gradient of the 3-tap filter's outputs, [batch, length, 3 channels] with batches dmixed_batch values
/// apart.
template <class T>
void hyena_gradient(const HyenaInput<T>& in, const T* dy, const T* filtered, const T* dp, int64_t dp_batch,
                    T* dmixed, int64_t dmixed_batch, void* stream);

}  // namespace focus::kernels::cuda
