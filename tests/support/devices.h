// The device and the type of numbers as parameters of a test.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>
#include <ostream>
#include <string>
#include <tuple>

namespace focus::testing {

/// emulated: the CUDA kernels compiled for the CPU, behind CPU tensors.
enum class TestDevice { cpu, emulated, cuda };

inline std::ostream& operator<<(std::ostream& out, TestDevice device) {
  return out << (device == TestDevice::cpu ? "cpu" : device == TestDevice::emulated ? "emulated" : "cuda");
}

/// The devices that there may be: the second parameter of a suite of OnDeviceTest.
inline const auto kDevices = ::testing::Values(TestDevice::cpu, TestDevice::emulated, TestDevice::cuda);

/// While one lives, CPU tensors are taken by the emulated CUDA kernels wherever these have one.
class EmulatedCuda {
 public:
  EmulatedCuda();
  ~EmulatedCuda();
  EmulatedCuda(const EmulatedCuda&) = delete;
  EmulatedCuda& operator=(const EmulatedCuda&) = delete;
};

/// Why tests cannot run on the device, or an empty string.
std::string missing(TestDevice device);

/// A test on a shape, a device and a type; skipped with the reason where the device is missing.
template <class Shape>
class OnDeviceTest : public ::testing::TestWithParam<std::tuple<Shape, TestDevice, at::ScalarType>> {
 protected:
  void SetUp() override {
    if (const std::string reason = missing(test_device()); !reason.empty()) GTEST_SKIP() << reason;
    if (test_device() == TestDevice::emulated) emulation_.emplace();
  }
  void TearDown() override { emulation_.reset(); }
  const Shape& shape() const { return std::get<0>(this->GetParam()); }
  TestDevice test_device() const { return std::get<1>(this->GetParam()); }
  at::Device device() const { return test_device() == TestDevice::cuda ? at::kCUDA : at::kCPU; }
  at::ScalarType type() const { return std::get<2>(this->GetParam()); }

 private:
  std::optional<EmulatedCuda> emulation_;
};

}  // namespace focus::testing
