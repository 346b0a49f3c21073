// The device and the type of numbers as parameters of a test.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <tuple>

namespace focus::testing {

/// emulated: the CUDA kernels compiled for the CPU, and tensors of a type of device of their own
/// (support/emulated_card.h).
enum class TestDevice { cpu, emulated, cuda };

inline std::ostream& operator<<(std::ostream& out, TestDevice device) {
  return out << (device == TestDevice::cpu ? "cpu" : device == TestDevice::emulated ? "emulated" : "cuda");
}

/// The devices that there may be: the second parameter of a suite of OnDeviceTest.
inline const auto kDevices = ::testing::Values(TestDevice::cpu, TestDevice::emulated, TestDevice::cuda);

/// Those with kernels of focus's own that are CUDA's.
inline const auto kCards = ::testing::Values(TestDevice::emulated, TestDevice::cuda);

/// Why tests cannot run on the device, or an empty string.
std::string missing(TestDevice device);
at::Device device_of(TestDevice device);

/// A test on a shape, a device and a type; skipped with the reason where the device is missing.
template <class Shape>
class OnDeviceTest : public ::testing::TestWithParam<std::tuple<Shape, TestDevice, at::ScalarType>> {
 protected:
  void SetUp() override {
    if (const std::string reason = missing(test_device()); !reason.empty()) GTEST_SKIP() << reason;
  }
  const Shape& shape() const { return std::get<0>(this->GetParam()); }
  TestDevice test_device() const { return std::get<1>(this->GetParam()); }
  at::Device device() const { return device_of(test_device()); }
  at::ScalarType type() const { return std::get<2>(this->GetParam()); }
};

}  // namespace focus::testing
