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
__device__ inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaTile t{{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  mma_m16n8k16(t);
  for (int i = 0; i < 4; ++i) c[i] = t.c[i];
}

// Like copy_async, for 4 or 16 bytes, or writes zeros and reads nothing.
template <class T>
__device__ inline void copy_async_or_zeros(T* shared, const void* global, bool copied) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 16);
#ifdef __CUDACC__
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int size = copied ? sizeof(T) : 0;
  if constexpr (sizeof(T) == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
  }
#else
  static const T zeros{};
  emu::copy_later(shared, copied ? global : &zeros, sizeof(T));
#endif
}

// One store of 16 bytes: nvcc splits that of a vector made of values into four where a branch beside it
// stores the values one by one.
__device__ inline void store_16_bytes(void* global, uint4 words) {
#ifdef __CUDACC__
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(global)),
               "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
#else
  *static_cast<uint4*>(global) = words;
#endif
}

// Four 8x8 matrices of 16-bit values from shared memory: lanes 8 i .. 8 i + 7 name the rows of matrix i, 16
// bytes each; to[i] of a lane are columns lane % 4 * 2 and the next of row lane / 4, the lower one in the
// lower half, or with kTransposed the same of the transposed matrix. That is the layout of the operands of
// mma_m16n8k16.
template <bool kTransposed>
__device__ inline void load_matrices(uint32_t (&to)[4], const uint4* row) {
#ifdef __CUDACC__
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
  }
#else
  struct Record {
    uint16_t row[8];
    uint32_t to[4];
  } record;
  const uint4 values = *row;
  std::memcpy(record.row, &values, sizeof(values));
  const auto combine = [](void* const* all, uint32_t mask) {
    if (mask != 0xffffffffu) emu::fail("ldmatrix needs the whole warp");
    const auto at = [all](int lane) { return static_cast<Record*>(all[lane]); };
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row_of = lane / 4, column = lane % 4 * 2;
        const auto one = [&](int c) -> uint32_t {
          return kTransposed ? at(8 * i + c)->row[row_of] : at(8 * i + row_of)->row[c];
        };
        at(lane)->to[i] = one(column) | one(column + 1) << 16;
      }
  };
  emu::warp(0xffffffffu, &record, combine, "load_matrices", __FILE__, __LINE__);
  std::memcpy(to, record.to, sizeof(record.to));
#endif
}

// 2^x to about 2 units in the last place; results below fp32's normal numbers are zero.
__device__ inline float exp2_fast(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return std::exp2(x);
#endif
}

// Sixteen bytes of global memory that this block reads once and nobody writes: they take no place in the
// first-level cache.
__device__ inline uint4 load_once(const uint4* from) {
#ifdef __CUDACC__
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(from));
  return v;
#else
  return *from;
#endif
}

// Sixteen bytes to global memory in one access: left to itself the compiler splits some of these.
__device__ inline void store_vector(uint4* to, uint4 v) {
#ifdef __CUDACC__
  asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
#else
  *to = v;
#endif
}
