// The emulated CUDA kernels as a device of the tests: what src/ops/cuda/device.cpp is for a card.
#include <ATen/Context.h>

#include "focus/core/error.h"
#include "ops/cuda/cuda_kernels.h"
#include "support/devices.h"

namespace focus::ops {

void* current_stream(const at::Device&) { return nullptr; }
int64_t CudaKernels::free_bytes(const at::Device&) const {
  fail<DeviceError>("the emulation has no memory of its own");
}
int64_t CudaKernels::peak_bytes(const at::Device&) const {
  fail<DeviceError>("the emulation has no memory of its own");
}

}  // namespace focus::ops

namespace focus::testing {

EmulatedCuda::EmulatedCuda() {
  static const ops::CudaKernels kernels;
  ops::set_device_kernels(at::kCPU, &kernels);
}
EmulatedCuda::~EmulatedCuda() { ops::set_device_kernels(at::kCPU, nullptr); }

std::string missing(TestDevice device) {
  return device == TestDevice::cuda ? "this program was linked with the emulated kernels" : "";
}

}  // namespace focus::testing
