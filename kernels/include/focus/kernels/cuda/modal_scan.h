// Sums of decaying exponentials, run as a recurrence, on a CUDA device: raw device pointers, the caller's
// stream, 64-bit sizes. T: float or Bf16; states and sums are fp32. Errors: InternalError with CUDA's reason
// when a launch fails.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// The most modes of a channel.
inline constexpr int kScanModes = 16;
/// Stretches of so many rows run beside each other: the states at their ends first, each from zero, then what
/// is carried from stretch to stretch, then the outputs.
inline constexpr int64_t kScanStretch = 256;
inline int64_t scan_stretches(int64_t length) { return (length + kScanStretch - 1) / kScanStretch; }

struct Modes {
  const float *log_poles, *residues;  // [channels, num_modes]; a pole's exponential is fp64 in between
  /// [batch, scan_stretches(length), num_modes, channels]: the states before each stretch; the first is
  /// given.
  float* states;
  float* final;  // [batch, num_modes, channels]
  int64_t num_modes;
};

/// s_n[t] = exp(log_pole_n) s_n[t-1] + p[t];  y[t] = sum_n r_n s_n[t] + skip p[t]
template <class T>
struct Scan {
  const T* p;  // [batch, length, channels]; batches p_batch values apart
  int64_t p_batch;
  Modes modes;
  const T* skip;  // [channels]; may be null
  T* y;           // [batch, length, channels]
  int64_t batch, length, channels;
};
template <class T>
void modal_scan(const Scan<T>& args, void* stream);

/// The gradient, from the states that modal_scan left.
template <class T>
struct ScanGradient {
  const T* p;   // read for dpoles and dresidues alone
  const T* dy;  // [batch, length, channels]
  const float *log_poles, *residues, *states;
  const T* skip;  // may be null
  /// [batch, scan_stretches(length), num_modes, channels]: gradients of the states after each stretch; the
  /// last, that of the final states, is given.
  float* dstates;
  T* dp;            // [batch, length, channels]
  float* dinitial;  // [batch, num_modes, channels]
  /// [batch, scan_stretches(length), num_modes, channels] to be summed over the first two; null: not wanted.
  float *dpoles, *dresidues;
  int64_t batch, length, num_modes, channels;
};
template <class T>
void modal_scan_gradient(const ScanGradient<T>& args, void* stream);

}  // namespace focus::kernels::cuda
