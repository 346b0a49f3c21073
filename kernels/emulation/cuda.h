// The part of CUDA C++ that the kernels use, for a compiler that knows none of it: the threads of a block run
// as fibers on one CPU thread, block after block, in a fixed order (machine.cpp). What is not here does not
// compile: add it when a kernel needs it. Kernels include it through cuda/platform.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulation/recording.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("cuda_shared")))
#define EMU_INLINE inline __attribute__((always_inline))
#define EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- types
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned in_x = 1, unsigned in_y = 1, unsigned in_z = 1) : x(in_x), y(in_y), z(in_z) {}
};
// clang-format off
#define EMU_VECTORS(T, name)                                     \
  struct alignas(8) name##2 { T x, y; };                         \
  struct alignas(16) name##4 { T x, y, z, w; };                  \
  EMU_INLINE name##2 make_##name##2(T x, T y) { return {x, y}; } \
  EMU_INLINE name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
// clang-format on
EMU_VECTORS(float, float)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)

struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- the emulator
namespace emu {

struct Failure : std::runtime_error {
  using runtime_error::runtime_error;
};
extern bool reverse_order;  // Blocks and threads last to first, as FOCUS_EMULATION_ORDER=falling asks:
                            // results must not change.

[[noreturn]] void fail(const std::string& message);
void run(dim3 grid, dim3 block, size_t dynamic_shared, void (*body)(const void*), const void* context);
void barrier(const char* file, int line);
// Waits until every lane of `mask` has called with the same mask and place; the last one in runs
// combine(records, mask) for all.
using Combine = void (*)(void* const* records, uint32_t mask);
void warp(uint32_t mask, void* record, Combine combine, const char* what, const char* file, int line);
void order_warp();  // what went before in this warp happens before what follows
void note_access(const void* at, size_t size, bool write,
                 bool atomic);  // what the check of memory accesses cannot see by itself
void* dynamic_shared();
void copy_later(void* to, const void* from, size_t size);  // by the next copy_now of this thread
void copy_now();
int lane();

struct SharedSlot {  // one SHARED array: the first thread of a block to come by takes its memory, filled with
                     // NaN
  const char* name;
  uint64_t block = 0;
  void* data = nullptr;
  void* get(size_t size);
};

template <class T>
T exchange(uint32_t mask, T value, int source, const char* what, const char* file, int line) {
  struct Record {
    T value, result;
    int source;
  } record{value, {}, source};
  const auto combine = [](void* const* all, uint32_t lanes) {
    for (int i = 0; i < 32; ++i) {
      if (!(lanes >> i & 1)) continue;
      auto* mine = static_cast<Record*>(all[i]);
      if (!(lanes >> mine->source & 1)) fail("a shuffle reads a lane that its mask does not name");
      mine->result = static_cast<Record*>(all[mine->source])->value;
    }
  };
  warp(mask, &record, combine, what, file, line);
  return record.result;
}

template <class T, class F>  // uninstrumented: the check of memory accesses hears of it by note_access alone
__attribute__((no_sanitize_thread)) T atomic(T* at, F&& update) {
  note_access(at, sizeof(T), true, true);
  T old;
  std::memcpy(&old, at, sizeof(T));
  const T next = update(old);
  std::memcpy(at, &next, sizeof(T));
  return old;
}

}  // namespace emu

#define SHARED(name, ...)                                \
  using name##_type = std::type_identity_t<__VA_ARGS__>; \
  static emu::SharedSlot name##_slot{#name};             \
  name##_type& name = *static_cast<name##_type*>(name##_slot.get(sizeof(name##_type)))
#define SHARED_DYNAMIC(name, type) type* const name = static_cast<type*>(emu::dynamic_shared())

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared, cudaStream_t, A&&... args) {
  const std::tuple<P...> values{static_cast<P>(std::forward<A>(args))...};
  const auto run = [=] {
    const auto call = [&] { std::apply(kernel, values); };
    using Call = decltype(call);
    emu::run(grid, block, dynamic_shared, [](const void* c) { (*static_cast<Call*>(c))(); }, &call);
  };
  run();
  if (emu::recording != nullptr) emu::recording->push_back(run);
}

// ---- barriers, warps, atomics
inline void __syncthreads(EMU_HERE) { emu::barrier(file, line); }
inline void __threadfence() {}
inline void __syncwarp(uint32_t mask = 0xffffffffu, EMU_HERE) {
  const auto combine = [](void* const*, uint32_t) { emu::order_warp(); };
  emu::warp(mask, nullptr, combine, "__syncwarp", file, line);
}
#define EMU_SHUFFLE(name, type, source)                                                  \
  template <class T>                                                                     \
  T name(uint32_t mask, T value, type by, int width = 32, EMU_HERE) {                    \
    const int lane = emu::lane(), first = lane & ~(width - 1), n = static_cast<int>(by); \
    return emu::exchange(mask, value, source, #name, file, line);                        \
  }
EMU_SHUFFLE(__shfl_sync, int, first | (n & (width - 1)))
EMU_SHUFFLE(__shfl_up_sync, unsigned, lane - n >= first ? lane - n : lane)
EMU_SHUFFLE(__shfl_down_sync, unsigned, lane + n < first + width ? lane + n : lane)
EMU_SHUFFLE(__shfl_xor_sync, int, (lane ^ n) < first + width ? lane ^ n : lane)
inline uint32_t __ballot_sync(uint32_t mask, int predicate, EMU_HERE) {
  uint32_t record = predicate != 0;
  const auto combine = [](void* const* all, uint32_t lanes) {
    uint32_t votes = 0;
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1) votes |= *static_cast<uint32_t*>(all[i]) << i;
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1) *static_cast<uint32_t*>(all[i]) = votes;
  };
  emu::warp(mask, &record, combine, "a vote", file, line);
  return record;
}
inline int __any_sync(uint32_t mask, int predicate, EMU_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, EMU_HERE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emu::atomic(at, [&](T old) { return old + value; });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return emu::atomic(at, [&](T old) { return old < value ? value : old; });
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return emu::atomic(at, [&](T old) { return old == expected ? value : old; });
}

// ---- arithmetic
template <class T>
EMU_INLINE T __ldg(const T* at) {
  return *at;
}
template <class T>
EMU_INLINE T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
EMU_INLINE T max(T a, T b) {
  return a < b ? b : a;
}
EMU_INLINE float min(float a, float b) {
  return std::fmin(a, b);
}  // of a number and NaN the number, as on the GPU
EMU_INLINE float max(float a, float b) { return std::fmax(a, b); }
// Macros, because glibc's <cmath> declares functions of these names.
#define __expf(x) std::exp(static_cast<float>(x))
#define __logf(x) std::log(static_cast<float>(x))
#define __sinf(x) std::sin(static_cast<float>(x))
#define __cosf(x) std::cos(static_cast<float>(x))
EMU_INLINE float __fdividef(float a, float b) { return a / b; }
EMU_INLINE void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(M_PI * x));
  *cosine = static_cast<float>(std::cos(M_PI * x));
}
EMU_INLINE float rsqrtf(float x) { return 1.f / std::sqrt(x); }
EMU_INLINE float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
EMU_INLINE float __fmul_rn(float a, float b) { return a * b; }
EMU_INLINE float __fadd_rn(float a, float b) { return a + b; }
EMU_INLINE int __popc(unsigned x) { return __builtin_popcount(x); }
EMU_INLINE int __ffs(int x) { return __builtin_ffs(x); }
EMU_INLINE int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
EMU_INLINE unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
EMU_INLINE float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
EMU_INLINE int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
EMU_INLINE float __int_as_float(int x) { return __builtin_bit_cast(float, x); }

EMU_INLINE float __bfloat162float(__nv_bfloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
EMU_INLINE __nv_bfloat16 __float2bfloat16(float x) {  // to nearest, ties to even
  const unsigned u = __float_as_uint(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}
EMU_INLINE __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }
EMU_INLINE __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16(x), __float2bfloat16(y)};
}
EMU_INLINE __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
EMU_INLINE float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
EMU_INLINE __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
EMU_INLINE unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
