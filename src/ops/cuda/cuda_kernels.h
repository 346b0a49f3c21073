// The CUDA kernels on tensors, one file per family. Nothing here knows CUDA's headers: the objects are linked
// with the kernels that nvcc compiled and device.cpp, or in tests with the emulated kernels and tensors on
// the CPU.
#pragma once

#include "device_kernels.h"

namespace focus::ops {

class CudaKernels : public DeviceKernels {
 public:
  at::Tensor fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) const override;

  int64_t free_bytes(const at::Device& device) const override;
  int64_t peak_bytes(const at::Device& device) const override;
};

/// The stream that LibTorch's own work on the device goes to now, as cudaStream_t.
void* current_stream(const at::Device& device);

}  // namespace focus::ops
