// The device as a parameter of a test.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <tuple>

namespace focus::testing {

/// The devices that there may be: the second parameter of a suite of OnDeviceTest.
inline const auto kDevices = ::testing::Values(at::kCPU, at::kCUDA);

/// A test on a shape and a device; skipped where the device is missing. Gradients are checked on the CPU
/// alone.
template <class Shape>
class OnDeviceTest : public ::testing::TestWithParam<std::tuple<Shape, at::DeviceType>> {
 protected:
  void SetUp() override {
    if (device() == at::kCUDA && !at::hasCUDA()) GTEST_SKIP() << "no CUDA device, or a build without CUDA";
  }
  const Shape& shape() const { return std::get<0>(this->GetParam()); }
  at::Device device() const { return std::get<1>(this->GetParam()); }
};

}  // namespace focus::testing
