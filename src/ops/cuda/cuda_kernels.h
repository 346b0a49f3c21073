// The CUDA kernels on tensors, one file per family. Nothing here knows CUDA's headers: the objects are linked
// with the kernels that nvcc compiled and device.cpp, or in tests with the emulated kernels and tensors on
// the CPU.
#pragma once

#include <memory>
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

  bool serves_attention(const at::Tensor& q_BHQE) const override;
  AttentionResult attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                            const at::Tensor& v_BGSE, const at::Tensor& num_keys,
                            bool with_log_sum) const override;
  PartialAttention partial_attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                                     const at::Tensor& v_BGSE) const override;
  void attention_gradients(const at::Tensor& grad_BHQE, const AttentionResult& result,
                           const at::Tensor& q_BHQE, const MemoryPart& memory, const at::Tensor& k_BGSE,
                           const at::Tensor& v_BGSE, const AttentionInputs& to) const override;

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

  std::unique_ptr<RecordedWork> recorded_work(const at::Device& device) const override;
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
