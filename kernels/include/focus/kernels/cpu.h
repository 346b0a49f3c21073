// CPU kernels on raw pointers, fp32 and fp64, channels last. Each works on a range of channels, so that the caller can spread channel
// blocks over threads; results do not depend on how the range is split. The instruction set is picked at run time.
#pragma once

#include <cstdint>

namespace focus::kernels {

/// Channels are best split at multiples of this.
inline constexpr int64_t kChannelBlock = 16;

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

template <class T>
struct ModalScan {
  const T* p;           // [length, channels]
  const T* poles;       // [num_modes, channels]: decay a per mode
  const T* poles_rest;  // [num_modes, channels]: what rounding took off each pole; a slow pole's rounding error would grow with every step
  const T* residues;    // [num_modes, channels]
  const T* initial;     // [num_modes, channels]
  T* y;                 // [length, channels]
  T* final;             // [num_modes, channels]
  T* saved;             // [ceil(length / kScanBlock), num_modes, channels] states at block starts, for the gradient; may be null
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

/// y[t,c] = sum_j taps[j,c] x[t+j,c], channels [begin, end).
template <class T>
void fir_forward(const FirForward<T>& args, int64_t begin, int64_t end);
/// dtaps[j,c] += sum_t dy[t,c] x[t+j,c].
template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, int64_t begin, int64_t end);
/// s_n[t] = a_n s_n[t-1] + p[t];  y[t] = sum_n r_n s_n[t]  (a sum of decaying exponentials, run as a recurrence).
template <class T>
void modal_scan(const ModalScan<T>& args, int64_t begin, int64_t end);
/// Gradient of modal_scan given dy and dfinal; states inside a block are recomputed from `saved`.
template <class T>
void modal_scan_gradient(const ModalScanGradient<T>& args, int64_t begin, int64_t end);

/// "avx512", "avx2" or "baseline": what the running machine was given. FOCUS_CPU_ISA in the environment picks a lower one;
/// ConfigError when it names none of these, here and from the first kernel that runs.
const char* cpu_isa();
/// Whether the processor has bf16 products, without which LibTorch's bf16 matrix products are slow. False under FOCUS_CPU_ISA.
bool cpu_multiplies_bf16();

}  // namespace focus::kernels
