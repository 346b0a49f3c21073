#include "focus/kernels/cuda/gate.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

namespace {

namespace cuda = kernels::cuda;

cuda::Gate kernel_gate(Gate act) {
  return act == Gate::gelu ? cuda::Gate::gelu : act == Gate::silu ? cuda::Gate::silu : cuda::Gate::identity;
}

// As rows of contiguous values, where it is that: else copied.
Tensor in_rows(const Tensor& t) {
  return t.dim() == 2 && t.stride(1) == 1 ? t : t.reshape({-1, t.dim() > 0 ? t.size(-1) : 1}).contiguous();
}
template <class T>
cuda::Rows<const T> rows(const Tensor& t) {
  return {data<T>(t), t.stride(0)};
}
template <class T>
cuda::Rows<T> written_rows(const Tensor& t) {
  return {written<T>(t), t.stride(0)};
}

}  // namespace

Tensor CudaKernels::gate(const Tensor& a_in, const Tensor& b_in, Gate act) const {
  const c10::DeviceGuard guard(a_in.device());
  if (a_in.numel() == 0) return at::empty(a_in.sizes(), a_in.options());
  const Tensor a = in_rows(a_in), b = in_rows(b_in), y = at::empty(a.sizes(), a.options());
  with_type(a, [&]<class T>(T*) {
    cuda::gate<T>(kernel_gate(act), rows<T>(a), rows<T>(b), written_rows<T>(y), a.size(0), a.size(1),
                  current_stream(a.device()));
  });
  return y.view(a_in.sizes());
}

std::pair<Tensor, Tensor> CudaKernels::gate_gradient(const Tensor& a_in, const Tensor& b_in,
                                                     const Tensor& dy_in, Gate act) const {
  const c10::DeviceGuard guard(a_in.device());
  const auto options = a_in.options();
  if (a_in.numel() == 0) return {at::empty(a_in.sizes(), options), at::empty(a_in.sizes(), options)};
  const Tensor a = in_rows(a_in), b = in_rows(b_in), dy = in_rows(dy_in), da = at::empty(a.sizes(), options),
               db = at::empty(a.sizes(), options);
  with_type(a, [&]<class T>(T*) {
    cuda::gate_gradient<T>(kernel_gate(act), rows<T>(a), rows<T>(b), rows<T>(dy), written_rows<T>(da),
                           written_rows<T>(db), a.size(0), a.size(1), current_stream(a.device()));
  });
  return {da.view(a_in.sizes()), db.view(a_in.sizes())};
}

}  // namespace focus::ops
