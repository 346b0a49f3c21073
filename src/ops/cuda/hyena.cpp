#include "focus/kernels/cuda/hyena.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"
#include "filter_taps.h"
#include "scan_states.h"

namespace focus::ops {
namespace {

using at::Tensor;
namespace cuda = kernels::cuda;
using Input = DeviceKernels::HyenaInput;

Input contiguous(const Input& in) {
  return {in.z_BLC.stride(2) == 1 ? in.z_BLC : in.z_BLC.contiguous(),
          in.before.defined() ? in.before.contiguous() : in.before, in.taps_C3.contiguous()};
}

template <class T>
cuda::HyenaInput<T> kernel_input(const Input& in, const Tensor& last) {
  const Tensor& z = in.z_BLC;
  return {data<T>(z),          z.stride(0), z.stride(1), data<T>(in.before), written<T>(last),
          data<T>(in.taps_C3), z.size(0),   z.size(1),   z.size(2) / 3};
}

Tensor rows_like(const Tensor& z, int64_t rows, int64_t columns) {
  return at::empty({z.size(0), rows, columns}, z.options());
}

}  // namespace

int64_t CudaKernels::max_inner_taps() const { return cuda::kMaxInnerTaps; }

DeviceKernels::HyenaOutput CudaKernels::hyena_fir(const Input& input, const FilterTaps& filter,
                                                  const Tensor& skip_D, const Tensor& inner_before) const {
  const c10::DeviceGuard guard(input.z_BLC.device());
  const Input in = contiguous(input);
  const Tensor &z = in.z_BLC, skip = skip_D.defined() ? skip_D.contiguous() : skip_D,
               before = inner_before.defined() ? inner_before.contiguous() : inner_before;
  const int64_t channels = z.size(2) / 3;
  const Tensor y = rows_like(z, z.size(1), channels), last = rows_like(z, 2, z.size(2)),
               inner = rows_like(z, filter.taps_GK.size(1) - 1, channels);
  with_type(z, [&]<class T>(T*) {
    cuda::hyena_fir<T>(kernel_input<T>(in, last),
                       {kernel_taps<T>(filter, channels), data<T>(skip), data<T>(before), written<T>(inner)},
                       written<T>(y), current_stream(z.device()));
  });
  return {y, last, inner};
}

DeviceKernels::HyenaOutput CudaKernels::hyena_scan(const Input& input, const Modes& modes_of_D,
                                                   const Tensor& initial_BND) const {
  const c10::DeviceGuard guard(input.z_BLC.device());
  const Input in = contiguous(input);
  const Modes modes = ops::contiguous(modes_of_D);
  const Tensor &z = in.z_BLC, states = states_from(initial_BND, z.size(1)),
               final = at::empty(initial_BND.sizes(), initial_BND.options()),
               y = rows_like(z, z.size(1), z.size(2) / 3), last = rows_like(z, 2, z.size(2));
  with_type(z, [&]<class T>(T*) {
    cuda::hyena_scan<T>(kernel_input<T>(in, last), kernel_modes(modes, states, final), data<T>(modes.skip_D),
                        written<T>(y), current_stream(z.device()));
  });
  return {y, last, final};
}

void CudaKernels::hyena_split(const Input& input, const Tensor& dy_BLD, const Tensor& p_BLD,
                              const Tensor& dinner_BLD) const {
  const c10::DeviceGuard guard(input.z_BLC.device());
  const Input in = contiguous(input);
  const Tensor dy = dy_BLD.contiguous();
  with_type(dy, [&]<class T>(T*) {
    cuda::hyena_split<T>(kernel_input<T>(in, {}), data<T>(dy), written<T>(p_BLD), p_BLD.stride(0),
                         written<T>(dinner_BLD), dinner_BLD.stride(0), current_stream(dy.device()));
  });
}

void CudaKernels::hyena_gradient(const Input& input, const Tensor& dy_BLD, const Tensor& filtered_BLD,
                                 const Tensor& dp_BLD, const Tensor& dmixed_BLC) const {
  const c10::DeviceGuard guard(input.z_BLC.device());
  const Input in = contiguous(input);
  const Tensor dy = dy_BLD.contiguous(), filtered = filtered_BLD.contiguous(), dp = with_dense_rows(dp_BLD);
  with_type(dy, [&]<class T>(T*) {
    cuda::hyena_gradient<T>(kernel_input<T>(in, {}), data<T>(dy), data<T>(filtered), data<T>(dp),
                            dp.stride(0), written<T>(dmixed_BLC), dmixed_BLC.stride(0),
                            current_stream(dy.device()));
  });
}

}  // namespace focus::ops
