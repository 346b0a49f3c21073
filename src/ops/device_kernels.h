// What focus's own kernels of a device other than the CPU do, on tensors. Ops ask for them by a tensor's
// device and else run in plain ATen.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "focus/ops/attention.h"

namespace focus::ops {

/// What attention makes, and what its gradients need: log2 of the sum of exp(score + beta), [B,H,Q] fp32.
struct AttentionResult {
  at::Tensor out, log_sum;
};
/// What attention reads, or the gradients of it: contiguous, undefined where none is asked for.
struct AttentionInputs {
  at::Tensor q;
  Memory memory;
  at::Tensor k, v;
};

class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;
  /// causal_fir (focus/ops/fir.h), without gradients. Undefined where there is no kernel for these tensors.
  virtual at::Tensor fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) const = 0;

  /// Whether memory_attention of queries like these has a kernel.
  virtual bool serves_attention(const at::Tensor& q_BHQE) const = 0;
  /// memory_attention (focus/ops/attention.h); the head dimension of all is contiguous, beta fp32. The result
  /// is [B,H,Q,E] with the rows of a position beside each other.
  virtual AttentionResult attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                                    const at::Tensor& v_BGSE, bool with_log_sum) const = 0;
  /// Overwrites all that is defined of `to`.
  virtual void attention_gradients(const at::Tensor& grad_BHQE, const AttentionResult& result,
                                   const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                                   const at::Tensor& v_BGSE, const AttentionInputs& to) const = 0;

  virtual int64_t free_bytes(const at::Device& device) const = 0;
  virtual int64_t peak_bytes(const at::Device& device) const = 0;
};

/// Those of the tensor's device, or null.
const DeviceKernels* device_kernels(const at::Tensor& tensor);
const DeviceKernels* device_kernels(at::DeviceType type);
/// From now on, for one type of device; null: none.
void set_device_kernels(at::DeviceType type, const DeviceKernels* kernels);

}  // namespace focus::ops
