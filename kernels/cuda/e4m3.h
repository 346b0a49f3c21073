// Rounding to FP8: one instruction from compute capability 8.9 on, and its meaning in C++ elsewhere.
#pragma once
#include "platform.h"

// The bits of OCP FP8 E4M3 nearest to x, ties to even, saturating at +-448.
__device__ inline uint32_t e4m3_bits(float x) {
  const uint32_t bits = __float_as_uint(x), sign = bits >> 24 & 0x80u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return 0x7fu;
  if (size >= 0x43e00000u) return sign | 0x7eu;  // 448 and beyond
  // Below 2^-6 there are the multiples of 2^-9 alone, which are the steps of a float at 2^14.
  if (size < 0x3c800000u) return sign | (__float_as_uint(__uint_as_float(size) + 0x1p14f) - 0x46800000u);
  return sign | (((size + 0x7ffffu + (size >> 20 & 1u)) >> 20) - (120u << 3));
}
// Those of two numbers, the first in the lower byte.
__device__ inline uint32_t e4m3_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return e4m3_bits(low) | e4m3_bits(high) << 8;
#endif
}
