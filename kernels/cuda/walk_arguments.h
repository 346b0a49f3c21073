// What a walk along a sequence (walk.h) is given, and what it takes of a block.
#pragma once

#include "focus/kernels/cuda/hyena.h"
#include "pack.h"
#include "platform.h"

namespace focus::kernels::cuda {

inline constexpr int kColumns = 64, kTile = 32;
/// A filter looks back at most so many rows.
inline constexpr int kMaxBack = 128;

/// What a walk does with p.
enum class Inner {
  short_fir,  // at most kShortTaps taps, held in registers
  fir,        // at most kMaxBack + 1 taps
  toeplitz,   // the same on tensor cores: bf16, a filter for each 16 channels
  modes,      // outputs of decaying exponentials
  mode_ends,  // only the modes' states at the stretch's end, from zero at its start
  split,      // writes p and dy x2
  gradient,   // from gradients of x2 and p those of the 3-tap filter's outputs
};
inline constexpr int kShortTaps = 8;

template <class T>
struct Walk {
  const T* x;  // z [B, L, 3 C], or p [B, L, C]
  int64_t x_batch, x_row;
  const T* before;      // [B, 2, 3 C], the rows of z before; may be null
  const T* input_taps;  // [3 C, 3]
  T* last;              // [B, 2, 3 C], the last rows of z; may be null
  T* y;                 // [B, L, C]; gradient: [B, L, 3 C]
  int64_t y_batch;
  const T* skip;  // [C]; may be null
  // Filters.
  const T* carried;  // [B, K-1, C], the rows of p before; may be null
  int64_t carried_batch;
  T* new_carried;  // [B, K-1, C], the last rows of p; may be null
  const T* taps;   // channel c, oldest first: taps[c / run * filter_stride + j * tap_stride]
  int64_t num_taps, tap_stride, filter_stride, run, skip_lag;
  // Modes.
  const float *log_poles, *residues;  // [C, N]
  float* states;                      // [B, stretches, N, C] at the stretches' starts
  float* final;                       // [B, N, C]
  int64_t num_modes;
  // split, gradient.
  const T *dy, *filtered, *dp;  // [B, L, C]
  T* p;                         // [B, L, C]
  int64_t dp_batch, p_batch;

  int64_t batch, length, channels, tiles, stretches, launched, stretch_rows;
  bool packs;  // accesses of 16 bytes fit
};

template <Inner k>
inline constexpr bool kIsFir = k == Inner::short_fir || k == Inner::fir || k == Inner::toeplitz;
template <Inner k>
inline constexpr bool kIsModes = k == Inner::modes || k == Inner::mode_ends;

template <class T, Inner kInner, bool kHyena>
struct WalkShape {
  static constexpr int kThreads = kIsModes<kInner> ? kColumns : 256;
  static constexpr int kBlocksAtOnce = kIsModes<kInner> ? 6 : 2;  // on a multiprocessor, at least
  // Rows of z that a tile needs before its own, and values in a row of z.
  static constexpr int kContext = kHyena ? 2 : 0, kRow = kHyena ? 3 * kColumns : kColumns;
  // Tiles of p that are kept: the one worked on and those before it.
  static constexpr int kKept = kInner == Inner::short_fir ? 2 : kIsFir<kInner> ? kMaxBack / kTile + 1 : 1;
  static constexpr int kPitch = kColumns + kPack<T>;  // so that the rows of a matrix lie in different banks
  static constexpr int kIncoming = (kTile + kContext) * kRow;
  static constexpr size_t kShared =
      sizeof(T) * static_cast<size_t>(2 * kIncoming + (kKept + 1) * kTile * kPitch);
};

__device__ __forceinline__ float2 load_pair(const float* at) { return *reinterpret_cast<const float2*>(at); }
__device__ __forceinline__ float2 load_pair(const Bf16* at) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(at);
  return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
}
__device__ __forceinline__ void store_pair(float* at, float low, float high) {
  *reinterpret_cast<float2*>(at) = make_float2(low, high);
}
__device__ __forceinline__ void store_pair(Bf16* at, float low, float high) {
  *reinterpret_cast<uint32_t*>(at) = narrow_pair(low, high);
}

/// Modes first, first + 1, ... of a channel: the pole as the sum of two floats, since fp32 alone loses a slow
/// one's decay; zeros where there is no such mode.
template <int N>
__device__ __forceinline__ void read_modes(const float* log_poles, const float* residues, int64_t channel,
                                           int64_t num_modes, int first, bool inside, float (&pole)[N],
                                           float (&rest)[N], float (&residue)[N]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int64_t at = channel * num_modes + first + n;
    const bool there = inside && first + n < num_modes;
    const double exact = there ? exp(static_cast<double>(log_poles[at])) : 0.;
    pole[n] = static_cast<float>(exact);
    rest[n] = static_cast<float>(exact - static_cast<double>(pole[n]));
    residue[n] = there ? residues[at] : 0.f;
  }
}

}  // namespace focus::kernels::cuda
