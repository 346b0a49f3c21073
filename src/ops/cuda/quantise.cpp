#include "focus/kernels/cuda/quantise.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

Tensor CudaKernels::to_e4m3(const Tensor& x_in, double scale) const {
  const c10::DeviceGuard guard(x_in.device());
  const Tensor x = x_in.contiguous();
  Tensor y = at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn));
  with_type(x, [&]<class T>(T*) {
    kernels::cuda::quantise_e4m3<T>(data<T>(x), static_cast<float>(scale), written<uint8_t>(y), x.numel(),
                                    current_stream(x.device()));
  });
  return y;
}

}  // namespace focus::ops
