#include <cuda_runtime.h>

#include "focus/core/error.h"
#include "kernels/buffer.h"

namespace focus::testing {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail<DeviceError>(what, ": ", cudaGetErrorString(status));
}

}  // namespace

void* allocate_for_kernels(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMallocManaged(&data, bytes > 0 ? bytes : 1), "allocation");
  return std::memset(data, 0xff, bytes);
}
void release_for_kernels(void* data) { cudaFree(data); }
void finish_kernels() { check(cudaDeviceSynchronize(), "kernels"); }
std::string no_kernels() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  return status == cudaSuccess && count > 0 ? ""
                                            : std::string("no CUDA device: ") + cudaGetErrorString(status);
}

}  // namespace focus::testing
