// The CUDA kernels on tensors, one file per family. Nothing here knows CUDA's headers: the objects are linked
// with the kernels that nvcc compiled and device.cpp, or in tests with the emulated kernels and tensors on
// the CPU.
#pragma once

#include <utility>

#include "device_kernels.h"
#include "focus/kernels/linear.h"  // Bf16

namespace focus::ops {

class CudaKernels : public DeviceKernels {
 public:
  at::Tensor fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) const override;

  Norm rms_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& scale, double eps,
                Epsilon place, bool keep_root) const override;
  at::Tensor rms_norm_gradient(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& root,
                               const at::Tensor& dy, const at::Tensor& dsum, double eps,
                               Epsilon place) const override;
  at::Tensor rms_norm_scale_gradient(const at::Tensor& x, const at::Tensor& root,
                                     const at::Tensor& dy) const override;
  void rotate(const Turn& q, const Turn& k, const at::Tensor& positions, const at::Tensor& inv_freq,
              double scaling, bool backwards) const override;
  at::Tensor gate(const at::Tensor& a, const at::Tensor& b, Gate act) const override;
  std::pair<at::Tensor, at::Tensor> gate_gradient(const at::Tensor& a, const at::Tensor& b,
                                                  const at::Tensor& dy, Gate act) const override;
  at::Tensor few_rows(const at::Tensor& x, const Matrix& matrix, const Matrix& up, Gate act,
                      const at::Tensor& residual) const override;
  at::Tensor to_e4m3(const at::Tensor& x, double scale) const override;
  bool multiplies_e4m3(const at::Device& device) const override;
  at::Tensor choose_tokens(const at::Tensor& logits, const at::Tensor& uniform,
                           const TokenChoice& choice) const override;

  int64_t free_bytes(const at::Device& device) const override;
  int64_t peak_bytes(const at::Device& device) const override;
};

/// The stream that LibTorch's own work on the device goes to now, as cudaStream_t.
void* current_stream(const at::Device& device);

/// What the kernels take for fp32 (float) or bf16 (Bf16): calls f with a null pointer to the type.
template <class F>
auto with_type(const at::Tensor& t, F&& f) {
  return t.scalar_type() == at::kFloat ? f(static_cast<float*>(nullptr))
                                       : f(static_cast<kernels::Bf16*>(nullptr));
}
/// Null for an undefined tensor.
template <class T>
const T* data(const at::Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}
template <class T>
T* written(const at::Tensor& t) {
  return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

}  // namespace focus::ops
