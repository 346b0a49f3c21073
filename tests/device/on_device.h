// A test on a device other than the CPU, whose results are judged by the CPU's or by recordings.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include <optional>
#include <string>

#include "support/devices.h"

namespace focus::testing {

/// The devices with kernels of focus's own.
inline const auto kKernelDevices = ::testing::Values(TestDevice::emulated, TestDevice::cuda);

/// To be made before anything runs on the device; tests end early where reason() is not empty.
class OnDevice {
 public:
  explicit OnDevice(TestDevice device) : device_(device), reason_(missing(device)) {}
  const std::string& reason() const { return reason_; }
  at::Device device() const { return device_ == TestDevice::cuda ? at::kCUDA : at::kCPU; }
  at::Tensor there(const at::Tensor& tensor) const { return tensor.to(device()); }
  /// Runs with the device's kernels.
  template <class F>
  auto run(const F& f) const {
    std::optional<EmulatedCuda> emulation;
    if (device_ == TestDevice::emulated) emulation.emplace();
    return f();
  }

 private:
  TestDevice device_;
  std::string reason_;
};

}  // namespace focus::testing
