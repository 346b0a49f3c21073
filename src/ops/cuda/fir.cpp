#include "focus/kernels/cuda/fir.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"
#include "filter_taps.h"

namespace focus::ops {

using at::Tensor;

Tensor CudaKernels::fir(const Tensor& x_BTC, const FilterTaps& filter, const Tensor& skip_C,
                        bool skip_oldest) const {
  const c10::DeviceGuard guard(x_BTC.device());
  const Tensor x = with_dense_rows(x_BTC), skip = skip_C.defined() ? skip_C.contiguous() : skip_C;
  const int64_t taps = filter.taps_GK.size(1), length = x.size(1) - taps + 1;
  const Tensor y = at::empty({x.size(0), length, x.size(2)}, x.options());
  with_type(x, [&]<class T>(T*) {
    kernels::cuda::fir_forward<T>({data<T>(x), x.stride(0), kernel_taps<T>(filter, x.size(2)), data<T>(skip),
                                   skip_oldest ? taps - 1 : 0, written<T>(y), x.size(0), length, x.size(2)},
                                  current_stream(x.device()));
  });
  return y;
}

Tensor CudaKernels::fir_taps_gradient(const Tensor& x_BTC, const Tensor& dy_BLC) const {
  const c10::DeviceGuard guard(x_BTC.device());
  const Tensor x = with_dense_rows(x_BTC), dy = with_dense_rows(dy_BLC);
  const int64_t length = dy.size(1), taps = x.size(1) - length + 1,
                parts = x.size(0) * kernels::cuda::fir_stretches(length);
  const Tensor partial = at::empty({parts, taps, x.size(2)}, x.options().dtype(at::kFloat));
  with_type(x, [&]<class T>(T*) {
    kernels::cuda::fir_taps_gradient<T>({data<T>(x), x.stride(0), data<T>(dy), dy.stride(0),
                                         written<float>(partial), x.size(0), length, taps, x.size(2)},
                                        current_stream(x.device()));
  });
  return partial.sum(0);
}

}  // namespace focus::ops
