// One source for two compilers: nvcc gets CUDA's headers, any other compiler the emulation. Kernels differ
// from plain CUDA in three ways: launch(...) for <<<...>>>, SHARED(tile, float[32][33]) for an array in
// shared memory, and SHARED_DYNAMIC(tile, float) for the dynamic part of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "focus/core/error.h"
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_runtime.h>

template <class T>
struct SharedType {
  using type = T;
};
#define SHARED(name, ...) __shared__ typename SharedType<__VA_ARGS__>::type name
#define SHARED_DYNAMIC(name, type)                                \
  extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(dynamic_shared)

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared, cudaStream_t stream,
            A&&... args) {
  if (dynamic_shared > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(dynamic_shared));
  kernel<<<grid, block, dynamic_shared, stream>>>(static_cast<P>(std::forward<A>(args))...);
}
#else
#include "emulation/cuda.h"
#endif

namespace focus::kernels::cuda {

/// The largest second and third dimension of a grid: larger batches are walked by the blocks in steps of it.
inline constexpr int64_t kMaxGridYZ = 65535;

/// Throws InternalError with CUDA's reason when the launch before it was refused.
inline void check_launch(const char* what) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) fail<InternalError>(what, ": CUDA launch failed: ", cudaGetErrorString(status));
}

}  // namespace focus::kernels::cuda
