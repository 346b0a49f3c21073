#include "focus/ops/host_copy.h"

#include <ATen/record_function.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace focus::ops {

using at::Tensor;

Tensor from_host(const Tensor& host, const at::Device& device) {
  RECORD_FUNCTION("focus::from_host", c10::ArrayRef<const c10::IValue>{});
  if (device.is_cpu()) return host;
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

Tensor from_host(at::ArrayRef<int64_t> values, const at::Device& device) {
  return from_host(at::tensor(values, at::kLong), device);
}

Tensor to_host(const Tensor& tensor) {
  RECORD_FUNCTION("focus::to_host", c10::ArrayRef<const c10::IValue>{});
  return tensor.cpu();
}

void wait_for(const at::Device& device) {
  if (device.is_cpu()) return;
  RECORD_FUNCTION("focus::wait_for", c10::ArrayRef<const c10::IValue>{});
  const c10::impl::VirtualGuardImpl there(device.type());
  there.synchronizeStream(there.getStream(device));
}

}  // namespace focus::ops
