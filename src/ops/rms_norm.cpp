#include "focus/ops/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "focus/core/error.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& scale, double eps) {
    const Tensor rms = at::linalg_vector_norm(x, 2, at::IntArrayRef{-1}, true)
                           .mul_(1.0 / std::sqrt(static_cast<double>(x.size(-1))));
    const Tensor inverse = (rms + eps).reciprocal_();
    ctx->save_for_backward({x, scale, rms, inverse});
    return (x * inverse).mul_(scale);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &scale = saved[1], &rms = saved[2], &inverse = saved[3];
    const Tensor& dy = grads[0];
    Tensor dx, dscale;
    if (ctx->needs_input_grad(1)) dscale = (dy * x).mul_(inverse).flatten(0, -2).sum(0);
    if (ctx->needs_input_grad(0)) {
      // y = s x / (r + eps), r = |x| / sqrt(D):  dx = g / (r + eps) - x (g.x) / (D r (r + eps)^2), g = s dy;
      // r = 0 only where x = 0.
      const Tensor g = dy * scale;
      const Tensor dot = (g * x).sum(-1, true);
      const Tensor factor = dot.mul_(inverse)
                                .mul_(inverse)
                                .div_(rms.clamp_min(1e-30))
                                .mul_(-1.0 / static_cast<double>(x.size(-1)));
      dx = (g * inverse).addcmul_(x, factor);
    }
    return {dx, dscale, Tensor()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& scale, double eps) {
  if (scale.dim() != 1 || x.size(-1) != scale.size(0))
    fail<ShapeError>("rms_norm: scale ", scale.sizes(), " does not fit x ", x.sizes());
  const auto compute = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return RmsNorm::apply(x.to(compute), scale.to(compute), eps).to(x.scalar_type());
}

}  // namespace focus::ops
