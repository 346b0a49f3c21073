// Between host and device: the only places where either waits for the other, so that profilers and tests see
// them as "focus::from_host" and "focus::to_host".
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// A tensor of the host on `device`. Nobody waits: to a card it leaves from pinned memory, in the order of
/// the card's stream. On the CPU the tensor itself.
at::Tensor from_host(const at::Tensor& host, const at::Device& device);
/// A list of the host, int64, on `device`.
at::Tensor from_host(at::ArrayRef<int64_t> values, const at::Device& device);
/// On the host, once the device has computed it.
at::Tensor to_host(const at::Tensor& tensor);
/// Returns when the device has done all that was asked of it so far, copies to the host included.
void wait_for(const at::Device& device);

}  // namespace focus::ops
