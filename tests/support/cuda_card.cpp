// The card as a device of the tests, in builds with CUDA.
#include <ATen/Context.h>

#include "focus/core/error.h"
#include "support/devices.h"
#include "support/emulated_card.h"

namespace focus::testing {

at::Device device_of(TestDevice device) {
  if (device == TestDevice::emulated)
    fail<DeviceError>("this program was linked with the kernels for a card");
  return device == TestDevice::cuda ? at::kCUDA : at::kCPU;
}

std::string missing(TestDevice device) {
  if (device == TestDevice::emulated) return "this program was linked with the kernels for a card";
  return device == TestDevice::cuda && !at::hasCUDA() ? "no CUDA device" : "";
}

// Nothing is counted on a card.
CardCounts card_counts() { fail<DeviceError>(missing(TestDevice::emulated)); }
void reset_card_counts() { fail<DeviceError>(missing(TestDevice::emulated)); }
int64_t recorded_launches() { fail<DeviceError>(missing(TestDevice::emulated)); }
int64_t peak_card_bytes() { fail<DeviceError>(missing(TestDevice::emulated)); }

}  // namespace focus::testing
