#include "device_kernels.h"

#include <array>
#include <atomic>

#include "focus/core/error.h"
#include "focus/ops/device_memory.h"
#include "focus/ops/recorded_work.h"

namespace focus::ops {
namespace {

using Table = std::array<std::atomic<const DeviceKernels*>, at::COMPILE_TIME_MAX_DEVICE_TYPES>;

// A function's own, so that it is there when a static initialiser of another file fills it.
Table& table() {
  static Table all{};
  return all;
}

const DeviceKernels& of(const at::Device& device) {
  const DeviceKernels* kernels = device_kernels(device.type());
  if (kernels == nullptr)
    fail<DeviceError>(device.str(),
                      ": this build has no kernels for it; configure with the preset cuda-release");
  return *kernels;
}

}  // namespace

const DeviceKernels* device_kernels(at::DeviceType type) {
  return table()[static_cast<std::size_t>(type)].load(std::memory_order_relaxed);
}
const DeviceKernels* device_kernels(const at::Tensor& tensor) {
  return device_kernels(tensor.device().type());
}
const DeviceKernels* float_kernels(std::initializer_list<at::Tensor> tensors) {
  const at::Tensor& first = *tensors.begin();
  const DeviceKernels* kernels = device_kernels(first);
  if (kernels == nullptr || (first.scalar_type() != at::kFloat && first.scalar_type() != at::kBFloat16))
    return nullptr;
  for (const at::Tensor& t : tensors)
    if (t.defined() && (t.device() != first.device() || t.scalar_type() != first.scalar_type()))
      return nullptr;
  return kernels;
}
void set_device_kernels(at::DeviceType type, const DeviceKernels* kernels) {
  table()[static_cast<std::size_t>(type)].store(kernels);
}

std::unique_ptr<RecordedWork> recorded_work(const at::Device& device) {
  const DeviceKernels* kernels = device_kernels(device.type());
  return kernels != nullptr ? kernels->recorded_work(device) : nullptr;
}
bool has_device_kernels(at::DeviceType type) { return device_kernels(type) != nullptr; }
int64_t free_device_bytes(const at::Device& device) { return of(device).free_bytes(device); }
int64_t peak_device_bytes(const at::Device& device) { return of(device).peak_bytes(device); }

}  // namespace focus::ops
