// Sums of decaying exponentials, one set per channel, run as a recurrence on the CPU: fp32 and fp64, channels
// last. Works on a range of channels, so that the caller can spread channel blocks over threads; results do
// not depend on how the range is split.
#pragma once

#include <cstdint>

namespace focus::kernels {

/// The most modes of a channel: their states live on the stack.
inline constexpr int64_t kMaxModes = 64;

template <class T>
struct ModalScan {
  const T* p;           // [length, channels]
  const T* poles;       // [num_modes, channels]: decay a per mode
  const T* poles_rest;  // [num_modes, channels]: what rounding took off each pole; a slow pole's rounding
                        // error would grow with every step
  const T* residues;    // [num_modes, channels]
  const T* initial;     // [num_modes, channels]
  T* y;                 // [length, channels]
  T* final;             // [num_modes, channels]
  T* saved;  // [ceil(length / kScanBlock), num_modes, channels] states at block starts, for the gradient; may
             // be null
  int64_t length, num_modes, channels;
};
inline constexpr int64_t kScanBlock = 64;

template <class T>
struct ModalScanGradient {
  const T* p;
  const T* poles;
  const T* residues;
  const T* saved;
  const T* dy;      // [length, channels]
  const T* dfinal;  // [num_modes, channels]
  T* dp;            // [length, channels]; written
  T* dpoles;        // [num_modes, channels]; added to
  T* dresidues;     // [num_modes, channels]; added to
  T* dinitial;      // [num_modes, channels]; written
  int64_t length, num_modes, channels;
};

/// s_n[t] = a_n s_n[t-1] + p[t];  y[t] = sum_n r_n s_n[t]  (a sum of decaying exponentials, run as a
/// recurrence).
template <class T>
void modal_scan(const ModalScan<T>& args, int64_t begin, int64_t end);
/// Gradient of modal_scan given dy and dfinal; states inside a block are recomputed from `saved`.
template <class T>
void modal_scan_gradient(const ModalScanGradient<T>& args, int64_t begin, int64_t end);

}  // namespace focus::kernels
