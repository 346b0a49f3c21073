// What kernels say in inline PTX, and what it means in C++ for the emulation. One function each, so that
// kernels stay one source.
#pragma once
#include "platform.h"

// Copies a T of 4, 8 or 16 bytes from global to shared memory at any time until this thread's next
// copy_async_wait; the emulation copies as late as it may, so that what reads too early reads NaN. Other
// threads see it after a barrier that follows the wait.
template <class T>
__device__ inline void copy_async(T* shared, const T* global) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
#ifdef __CUDACC__
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(sizeof(T)) : "memory");
#else
  emu::copy_later(shared, global, sizeof(T));
#endif
}
__device__ inline void copy_async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_all;" ::: "memory");
#else
  emu::copy_now();
#endif
}

// c += a b on one warp's fragments: a is 16x16, b 16x8, both bf16, c 16x8 in fp32. Hardware adds the products
// in an order and with a rounding of its own.
struct MmaTile {
  uint32_t a[4], b[2];  // two bf16 in each, the lower column (of a) or row (of b) in the lower half
  float c[4];
};

__device__ inline void mma_m16n8k16(MmaTile& t) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(t.c[0]), "+f"(t.c[1]), "+f"(t.c[2]), "+f"(t.c[3])
      : "r"(t.a[0]), "r"(t.a[1]), "r"(t.a[2]), "r"(t.a[3]), "r"(t.b[0]), "r"(t.b[1]));
#else
  const auto combine = [](void* const* all, uint32_t mask) {
    if (mask != 0xffffffffu) emu::fail("mma.sync needs the whole warp");
    const auto tile = [all](int lane) { return static_cast<MmaTile*>(all[lane]); };
    const auto half = [](uint32_t pair, int which) {
      return __uint_as_float(which ? pair & 0xffff0000u : pair << 16);
    };
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 8; ++i)
        a[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = half(tile(lane)->a[i / 2], i % 2);
      for (int i = 0; i < 4; ++i) b[pair + i % 2 + i / 2 * 8][group] = half(tile(lane)->b[i / 2], i % 2);
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k)
          tile(lane)->c[i] += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
  };
  emu::warp(0xffffffffu, &t, combine, "mma_m16n8k16", __FILE__, __LINE__);
#endif
}
