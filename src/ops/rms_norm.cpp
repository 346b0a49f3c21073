#include "focus/ops/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/ops/tracked.h"

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

// Returns the norm or, with a delta, the sum and the norm.
struct DeviceRmsNorm : torch::autograd::Function<DeviceRmsNorm> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& scale,
                               const std::optional<Tensor>& summand, double eps, bool inside) {
    const auto place = inside ? Epsilon::inside : Epsilon::outside;
    const Tensor delta = summand.value_or(Tensor());
    const auto out = device_kernels(x)->rms_norm(x, delta, scale, eps, place, true);
    ctx->save_for_backward({delta.defined() ? out.sum : x, scale, out.root});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["inside"] = inside;
    ctx->set_materialize_grads(false);
    return delta.defined() ? variable_list{out.sum, out.y} : variable_list{out.y};
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &scale = saved[1], &root = saved[2];
    const bool summed = grads.size() == 2;
    const Tensor dy = grads.back(), dsum = summed ? grads[0] : Tensor();
    Tensor dx = dsum, dscale;
    if (dy.defined()) {
      const auto place = ctx->saved_data["inside"].toBool() ? Epsilon::inside : Epsilon::outside;
      const DeviceKernels& kernels = *device_kernels(x);
      if (ctx->needs_input_grad(0) || (summed && ctx->needs_input_grad(2)))
        dx = kernels.rms_norm_gradient(x, scale, root, dy, dsum, ctx->saved_data["eps"].toDouble(), place);
      if (ctx->needs_input_grad(1)) dscale = kernels.rms_norm_scale_gradient(x, root, dy);
    }
    return {dx, dscale, summed ? dx : Tensor(), Tensor(), Tensor()};
  }
};

void check(const Tensor& x, const Tensor& scale) {
  if (scale.dim() != 1 || x.size(-1) != scale.size(0))
    fail<ShapeError>("rms_norm: scale ", scale.sizes(), " does not fit x ", x.sizes());
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& scale, double eps, Epsilon place) {
  check(x, scale);
  if (const DeviceKernels* kernels = float_kernels({x, scale}); kernels != nullptr) {
    return tracked({x, scale})
               ? DeviceRmsNorm::apply(x, scale, std::optional<Tensor>(), eps, place == Epsilon::inside)[0]
               : kernels->rms_norm(x, {}, scale, eps, place, false).y;
  }
  const auto compute = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  if (place == Epsilon::outside)
    return RmsNorm::apply(x.to(compute), scale.to(compute), eps).to(x.scalar_type());
  const Tensor wide = x.to(compute);
  return (wide * at::rsqrt(wide.square().mean(-1, true) + eps)).to(x.scalar_type()) * scale;
}

SummedNorm add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& scale, double eps,
                        Epsilon place) {
  check(x, scale);
  if (const DeviceKernels* kernels = float_kernels({x, delta, scale});
      kernels != nullptr && x.sizes() == delta.sizes()) {
    if (tracked({x, delta, scale})) {
      const auto out = DeviceRmsNorm::apply(x, scale, std::optional(delta), eps, place == Epsilon::inside);
      return {out[0], out[1]};
    }
    const auto out = kernels->rms_norm(x, delta, scale, eps, place, false);
    return {out.sum, out.y};
  }
  const Tensor sum = x + delta;
  return {sum, rms_norm(sum, scale, eps, place)};
}

}  // namespace focus::ops
