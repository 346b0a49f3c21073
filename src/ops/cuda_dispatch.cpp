#include "cuda_dispatch.h"

#include "focus/core/error.h"
#include "focus/ops/device_memory.h"
#if defined(FOCUS_WITH_CUDA)
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "focus/kernels/cuda.h"
#endif

namespace focus::ops {

#if defined(FOCUS_WITH_CUDA)
bool has_cuda_fir(const at::Tensor& x, const at::Tensor& taps) {
  return x.is_cuda() && x.scalar_type() == at::kFloat && taps.device() == x.device() && x.size(0) <= 65535;
}

at::Tensor cuda_fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) {
  const c10::cuda::CUDAGuard guard(x_BTC.device());
  const at::Tensor x = x_BTC.contiguous(), taps = taps_KC.contiguous();
  const int64_t length = x.size(1) - taps.size(0) + 1;
  at::Tensor y = at::empty({x.size(0), length, x.size(2)}, x.options());
  kernels::cuda::fir_forward(x.const_data_ptr<float>(), taps.const_data_ptr<float>(),
                             y.mutable_data_ptr<float>(), x.size(0), length, taps.size(0), x.size(2),
                             c10::cuda::getCurrentCUDAStream().stream());
  return y;
}

int64_t free_device_bytes(const at::Device& device) {
  const c10::cuda::CUDAGuard guard(device);
  std::size_t free_bytes = 0, total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess)
    fail<DeviceError>(device.str(), " does not tell how much memory it has");
  const auto statistics = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return static_cast<int64_t>(free_bytes) + statistics.reserved_bytes[kAll].current -
         statistics.allocated_bytes[kAll].current;
}

int64_t peak_device_bytes(const at::Device& device) {
  constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return c10::cuda::CUDACachingAllocator::getDeviceStats(device.index()).allocated_bytes[kAll].peak;
}
#else
bool has_cuda_fir(const at::Tensor&, const at::Tensor&) { return false; }
at::Tensor cuda_fir(const at::Tensor&, const at::Tensor&) {
  fail<DeviceError>("this build has no CUDA kernels; configure with the preset cuda-release");
}
int64_t free_device_bytes(const at::Device& device) {
  fail<DeviceError>(device.str(), ": this build has no CUDA");
}
int64_t peak_device_bytes(const at::Device& device) {
  fail<DeviceError>(device.str(), ": this build has no CUDA");
}
#endif

}  // namespace focus::ops
