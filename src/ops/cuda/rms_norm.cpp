#include "focus/kernels/cuda/rms_norm.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

namespace cuda = kernels::cuda;

CudaKernels::Norm CudaKernels::rms_norm(const Tensor& x_in, const Tensor& delta_in, const Tensor& scale_in,
                                        double eps, Epsilon place, bool keep_root) const {
  const c10::DeviceGuard guard(x_in.device());
  const Tensor x = x_in.contiguous(), scale = scale_in.contiguous(),
               delta = delta_in.defined() ? delta_in.contiguous() : Tensor();
  const int64_t width = scale.size(0), rows = x.numel() / std::max<int64_t>(width, 1);
  Norm out;
  out.y = at::empty(x.sizes(), x.options());
  if (delta.defined()) out.sum = at::empty(x.sizes(), x.options());
  if (keep_root) out.root = at::empty({rows}, x.options().dtype(at::kFloat));
  with_type(x, [&]<class T>(T*) {
    cuda::rms_norm<T>({.x = data<T>(x),
                       .delta = data<T>(delta),
                       .sum = written<T>(out.sum),
                       .scale = data<T>(scale),
                       .y = written<T>(out.y),
                       .root = written<float>(out.root),
                       .rows = rows,
                       .width = width,
                       .eps = static_cast<float>(eps),
                       .eps_inside = place == Epsilon::inside},
                      current_stream(x.device()));
  });
  return out;
}

Tensor CudaKernels::rms_norm_gradient(const Tensor& x_in, const Tensor& scale_in, const Tensor& root,
                                      const Tensor& dy_in, const Tensor& dsum_in, double eps,
                                      Epsilon place) const {
  const c10::DeviceGuard guard(x_in.device());
  const Tensor x = x_in.contiguous(), scale = scale_in.contiguous(), dy = dy_in.contiguous(),
               dsum = dsum_in.defined() ? dsum_in.contiguous() : Tensor();
  Tensor dx = at::empty(x.sizes(), x.options());
  with_type(x, [&]<class T>(T*) {
    cuda::rms_norm_gradient<T>({.x = data<T>(x),
                                .scale = data<T>(scale),
                                .root = data<float>(root),
                                .dy = data<T>(dy),
                                .dsum = data<T>(dsum),
                                .dx = written<T>(dx),
                                .rows = root.size(0),
                                .width = scale.size(0),
                                .eps = static_cast<float>(eps),
                                .eps_inside = place == Epsilon::inside},
                               current_stream(x.device()));
  });
  return dx;
}

Tensor CudaKernels::rms_norm_scale_gradient(const Tensor& x_in, const Tensor& root,
                                            const Tensor& dy_in) const {
  const c10::DeviceGuard guard(x_in.device());
  const Tensor x = x_in.contiguous(), dy = dy_in.contiguous();
  const int64_t rows = root.size(0), width = x.size(-1);
  Tensor parts = at::empty({(rows + cuda::kScaleRows - 1) / cuda::kScaleRows, width}, root.options());
  with_type(x, [&]<class T>(T*) {
    cuda::rms_norm_scale_gradient<T>(data<T>(x), data<T>(dy), data<float>(root), written<float>(parts), rows,
                                     width, current_stream(x.device()));
  });
  return parts.sum(0).to(x.scalar_type());
}

}  // namespace focus::ops
