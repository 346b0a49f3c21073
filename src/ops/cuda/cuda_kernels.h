// The CUDA kernels on tensors, one file per family. Nothing here knows CUDA's headers: the objects are linked
// with the kernels that nvcc compiled and device.cpp, or in tests with the emulated kernels and tensors on
// the CPU.
#pragma once

#include "device_kernels.h"

namespace focus::ops {

class CudaKernels : public DeviceKernels {
 public:
  at::Tensor fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) const override;

  bool serves_attention(const at::Tensor& q_BHQE) const override;
  AttentionResult attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                            const at::Tensor& v_BGSE, bool with_log_sum) const override;
  void attention_gradients(const at::Tensor& grad_BHQE, const AttentionResult& result,
                           const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                           const at::Tensor& v_BGSE, const AttentionInputs& to) const override;

  int64_t free_bytes(const at::Device& device) const override;
  int64_t peak_bytes(const at::Device& device) const override;
};

/// The stream that LibTorch's own work on the device goes to now, as cudaStream_t.
void* current_stream(const at::Device& device);

}  // namespace focus::ops
