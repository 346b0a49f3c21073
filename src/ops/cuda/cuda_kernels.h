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
  at::Tensor fir(const at::Tensor& x_BTC, const FilterTaps& filter, const at::Tensor& skip_C,
                 bool skip_oldest) const override;
  at::Tensor fir_taps_gradient(const at::Tensor& x_BTC, const at::Tensor& dy_BLC) const override;
  int64_t max_modes() const override;
  ScanOutput scan(const at::Tensor& p_BLD, const Modes& modes, const at::Tensor& initial_BND) const override;
  ScanGradient scan_gradient(const at::Tensor& p_BLD, const at::Tensor& dy_BLD, const Modes& modes,
                             const at::Tensor& states, const at::Tensor& dfinal_BND,
                             bool filters) const override;
  int64_t max_inner_taps() const override;
  HyenaOutput hyena_fir(const HyenaInput& in, const FilterTaps& filter, const at::Tensor& skip_D,
                        const at::Tensor& inner) const override;
  HyenaOutput hyena_scan(const HyenaInput& in, const Modes& modes,
                         const at::Tensor& initial_BND) const override;
  void hyena_split(const HyenaInput& in, const at::Tensor& dy_BLD, const at::Tensor& p_BLD,
                   const at::Tensor& dinner_BLD) const override;
  void hyena_gradient(const HyenaInput& in, const at::Tensor& dy_BLD, const at::Tensor& filtered_BLD,
                      const at::Tensor& dp_BLD, const at::Tensor& dmixed_BLC) const override;

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
