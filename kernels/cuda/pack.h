// Values of fp32 or bf16 that are read and written N at a time and are fp32 in between: in accesses of
// sixteen bytes, or one by one (N = 1) where a size or an address does not allow that.
#pragma once

#include "focus/kernels/linear.h"  // Bf16
#include "ptx.h"

namespace focus::kernels::cuda {

/// So many values of the type are sixteen bytes.
template <class T>
inline constexpr int kPack = 16 / sizeof(T);

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x) << 16); }
template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (sizeof(T) == 4)
    return x;
  else
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
/// x as it is once it was stored.
template <class T>
__device__ __forceinline__ float rounded(float x) {
  return widen(narrow<T>(x));
}
__device__ __forceinline__ uint32_t narrow_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(pair.x)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
}

template <int N, class T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = widen(*from);
  } else {
    static_assert(N % kPack<T> == 0);
#pragma unroll
    for (int i = 0; i < N; i += kPack<T>) {
      const uint4 words = *reinterpret_cast<const uint4*>(from + i);
      const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (sizeof(T) == 4) {
          to[i + j] = __uint_as_float(word[j]);
        } else {
          to[i + 2 * j] = __uint_as_float(word[j] << 16);
          to[i + 2 * j + 1] = __uint_as_float(word[j] & 0xffff0000u);
        }
      }
    }
  }
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = narrow<T>(from[0]);
  } else {
    static_assert(N % kPack<T> == 0);
#pragma unroll
    for (int i = 0; i < N; i += kPack<T>) {
      uint32_t word[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if constexpr (sizeof(T) == 4)
          word[j] = __float_as_uint(from[i + j]);
        else
          word[j] = narrow_pair(from[i + 2 * j], from[i + 2 * j + 1]);
      }
      store_vector(reinterpret_cast<uint4*>(to + i), make_uint4(word[0], word[1], word[2], word[3]));
    }
  }
}

/// Whether accesses of sixteen bytes fit all of these: addresses (null fits), and distances in values of T.
template <class T, class... P>
bool packs_fit(std::initializer_list<int64_t> distances, const P*... pointers) {
  bool fit = true;
  for (const int64_t distance : distances) fit = fit && distance % kPack<T> == 0;
  return (fit && ... && (reinterpret_cast<uintptr_t>(pointers) % 16 == 0));
}

__host__ __device__ inline int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
/// Blocks along the second or third dimension of a grid, which they walk in steps of it.
inline unsigned blocks(int64_t wanted) { return static_cast<unsigned>(min(wanted, kMaxGridYZ)); }
/// Blocks that take a row each, and more rows in steps of the grid: a few times what a large card holds.
inline unsigned row_blocks(int64_t rows) { return static_cast<unsigned>(min(rows, int64_t{4096})); }

}  // namespace focus::kernels::cuda
