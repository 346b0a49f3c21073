// Whether there is an accelerator, and what it has free.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::ops {

/// Whether focus has kernels of its own for this type of device, other than the CPU.
bool has_device_kernels(at::DeviceType type);
/// Bytes that new tensors on a CUDA device can take: free on the device or cached by LibTorch's allocator.
/// DeviceError in a build without CUDA.
int64_t free_device_bytes(const at::Device& device);
/// The most bytes that tensors on a CUDA device took together so far in this process. DeviceError in a build
/// without CUDA.
int64_t peak_device_bytes(const at::Device& device);

}  // namespace focus::ops
