#include "focus/kernels/cuda/linear.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

namespace cuda = kernels::cuda;
using kernels::Bf16;

Tensor CudaKernels::few_rows(const Tensor& x_in, const Matrix& matrix, const Matrix& up, Gate act,
                             const Tensor& residual_in) const {
  const int64_t inputs = matrix.weight.size(1), outputs = matrix.weight.size(0),
                count = x_in.numel() / std::max<int64_t>(inputs, 1);
  if (x_in.scalar_type() != at::kBFloat16 || count > cuda::kFewRows || x_in.numel() == 0 || outputs == 0 ||
      !matrix.weight.is_contiguous() || (up.weight.defined() && !up.weight.is_contiguous()))
    return {};
  const c10::DeviceGuard guard(x_in.device());
  const auto contiguous = [](const Tensor& t) { return t.defined() ? t.contiguous() : t; };
  const Tensor x = x_in.reshape({count, inputs}).contiguous(), bias = contiguous(matrix.bias),
               up_bias = contiguous(up.bias), residual = contiguous(residual_in);
  auto sizes = x_in.sizes().vec();
  sizes.back() = outputs;
  if (residual.defined() && residual.sizes() != at::IntArrayRef(sizes)) return {};
  Tensor y = at::empty(sizes, x.options());
  cuda::few_rows({.x = data<Bf16>(x),
                  .weight = data<Bf16>(matrix.weight),
                  .bias = data<Bf16>(bias),
                  .up = data<Bf16>(up.weight),
                  .up_bias = data<Bf16>(up_bias),
                  .residual = data<Bf16>(residual),
                  .y = written<Bf16>(y),
                  .rows = count,
                  .x_stride = inputs,
                  .inputs = inputs,
                  .outputs = outputs,
                  .act = act == Gate::gelu   ? cuda::Gate::gelu
                         : act == Gate::silu ? cuda::Gate::silu
                                             : cuda::Gate::identity},
                 current_stream(x.device()));
  return y;
}

}  // namespace focus::ops
