#include "focus/kernels/cuda/fir.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

Tensor CudaKernels::fir(const Tensor& x_BTC, const Tensor& taps_KC) const {
  if (x_BTC.scalar_type() != at::kFloat || taps_KC.device() != x_BTC.device()) return {};
  const c10::DeviceGuard guard(x_BTC.device());
  const Tensor x = x_BTC.contiguous(), taps = taps_KC.contiguous();
  const int64_t length = x.size(1) - taps.size(0) + 1;
  Tensor y = at::empty({x.size(0), length, x.size(2)}, x.options());
  kernels::cuda::fir_forward(x.const_data_ptr<float>(), taps.const_data_ptr<float>(),
                             y.mutable_data_ptr<float>(), x.size(0), length, taps.size(0), x.size(2),
                             current_stream(x.device()));
  return y;
}

}  // namespace focus::ops
