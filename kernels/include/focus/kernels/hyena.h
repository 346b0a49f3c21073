// The operator of a Hyena mixer on the CPU, forward and backward in one pass over memory each: fp32 and bf16,
// sums in fp32, channels last. It goes over time in tiles that stay in the first-level cache. Works on a
// range of channels, so that the caller can spread channel blocks over threads; results do not depend on how
// the range is split.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"
#include "focus/kernels/modal_scan.h"

namespace focus::kernels {

/// Ranges of channels are best split at multiples of this.
inline constexpr int64_t kHyenaChannels = 16;
/// The most taps of the inner filter, which live on the stack; modes: kMaxModes.
inline constexpr int64_t kMaxHyenaTaps = 129;

/// z' = fir(z), 3 taps; x2, x1, v = z'[0::3], z'[1::3], z'[2::3]; p = x1 v; f = inner(p) + skip p; y = x2 f.
/// What has a name here is rounded to T.
template <class T>
struct Hyena {
  const T* z;           // [length, 3 channels]
  const T* before;      // [2, 3 channels], the rows before z; null: zeros
  const T* input_taps;  // [3 channels, 3], the newest row's last
  const T* skip;        // [channels]; null: none
  int64_t length, channels;
  // The inner filter: taps, or modes where there are any.
  const T* taps;  // [channels / run, num_taps], one filter for `run` channels in turn
  int64_t num_taps, run;
  bool newest_first;
  const T* p_before;        // [num_taps - 1, channels], the rows before p; null: zeros
  const float* poles;       // [channels, num_modes]
  const float* poles_rest;  // [channels, num_modes]: what rounding took off each pole
  const float* residues;    // [channels, num_modes]
  const float* initial;     // [num_modes, channels]
  int64_t num_modes;        // 0: taps
};

template <class T>
struct HyenaForward {
  Hyena<T> in;
  T* y;           // [length, channels]
  T* p_last;      // taps: [num_taps - 1, channels], the last rows of p; may be null
  float* final;   // modes: [num_modes, channels]
  float* states;  // modes: [ceil(length / kScanBlock), num_modes, channels], for the gradient; may be null
};

/// What is given and what is asked for may be null, but dz.
template <class T>
struct HyenaGradient {
  Hyena<T> in;
  const float* states;  // of the forward pass
  const T* dy;          // [length, channels]
  const T* dlast;       // [2, 3 channels]: of the last two rows of `before` and z together
  const T* dp_last;     // taps: [num_taps - 1, channels]
  const float* dfinal;  // modes: [num_modes, channels]
  T* dz;                // [length, 3 channels]
  T* dbefore;           // [2, 3 channels]
  T* dp_before;         // taps: [num_taps - 1, channels]
  float* dinitial;      // modes: [num_modes, channels]
  // Of filters, added to.
  float* dinput_taps;  // [3, 3 channels]
  float* dskip;        // [channels]
  float* dtaps;        // [num_taps, channels], the newest row's last
  float* dpoles;       // [num_modes, channels]
  float* dresidues;    // [num_modes, channels]
};

/// Channels [begin, end). T: float or Bf16.
template <class T>
void hyena(const HyenaForward<T>& args, int64_t begin, int64_t end);
template <class T>
void hyena_gradient(const HyenaGradient<T>& args, int64_t begin, int64_t end);

}  // namespace focus::kernels
