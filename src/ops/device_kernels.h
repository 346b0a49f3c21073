// What focus's own kernels of a device other than the CPU do, on tensors. Ops ask for them by a tensor's
// device and else run in plain ATen.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::ops {

class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;
  /// causal_fir (focus/ops/fir.h), without gradients. Undefined where there is no kernel for these tensors.
  virtual at::Tensor fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) const = 0;

  virtual int64_t free_bytes(const at::Device& device) const = 0;
  virtual int64_t peak_bytes(const at::Device& device) const = 0;
};

/// Those of the tensor's device, or null.
const DeviceKernels* device_kernels(const at::Tensor& tensor);
const DeviceKernels* device_kernels(at::DeviceType type);
/// From now on, for one type of device; null: none.
void set_device_kernels(at::DeviceType type, const DeviceKernels* kernels);

}  // namespace focus::ops
