#include "focus/ops/rms_norm.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/kernels/rms_norm.h"
#include "focus/ops/tracked.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kWork = 1 << 15;  // numbers of one thread at the least

// With epsilon inside, more rows than these are left to LibTorch, whose order of summing is another there.
constexpr int64_t kFewRows = 4;

/// Whether the CPU's kernel takes all of these; undefined ones do not count.
bool fits_kernel(const Tensor& x, std::initializer_list<Tensor> others) {
  const auto type = x.scalar_type();
  const auto fits = [&](const Tensor& t) {
    return !t.defined() || (t.is_cpu() && t.scalar_type() == type && t.is_contiguous());
  };
  return (type == at::kFloat || type == at::kBFloat16) && x.numel() > 0 && fits(x) &&
         std::all_of(others.begin(), others.end(), fits);
}

/// Row by row; `delta` and `root`, fp32 with one number per row, may be undefined.
template <class T>
SummedNorm by_rows(const Tensor& x, const Tensor& delta, const Tensor& scale, double eps, Epsilon place,
                   const Tensor& root) {
  const int64_t width = x.size(-1);
  const SummedNorm out{delta.defined() ? at::empty(x.sizes(), x.options()) : x,
                       at::empty(x.sizes(), x.options())};
  const auto row_of = [width](const Tensor& t, int64_t row) {
    return t.defined() ? static_cast<const T*>(t.const_data_ptr()) + row * width : nullptr;
  };
  T *const sums = delta.defined() ? static_cast<T*>(out.sum.mutable_data_ptr()) : nullptr,
           *const normed = static_cast<T*>(out.normed.mutable_data_ptr());
  float* const roots = root.defined() ? root.mutable_data_ptr<float>() : nullptr;
  at::parallel_for(0, x.numel() / width, std::max<int64_t>(1, kWork / width),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row) {
                       kernels::rms_norm<T>({.x = row_of(x, row),
                                             .delta = row_of(delta, row),
                                             .scale = row_of(scale, 0),
                                             .sum = sums != nullptr ? sums + row * width : nullptr,
                                             .y = normed + row * width,
                                             .root = roots != nullptr ? roots + row : nullptr,
                                             .width = width,
                                             .eps = static_cast<float>(eps),
                                             .eps_inside = place == Epsilon::inside});
                     }
                   });
  return out;
}

/// By the CPU's kernel; nothing where it does not take these. `delta` may be undefined.
std::optional<SummedNorm> by_cpu_kernel(const Tensor& x, const Tensor& delta, const Tensor& scale, double eps,
                                        Epsilon place) {
  if (!fits_kernel(x, {delta, scale}) || tracked({x, delta, scale}) ||
      (place == Epsilon::inside && x.numel() > kFewRows * x.size(-1)) ||
      (delta.defined() && delta.sizes() != x.sizes()))
    return std::nullopt;
  return x.scalar_type() == at::kFloat ? by_rows<float>(x, delta, scale, eps, place, {})
                                       : by_rows<kernels::Bf16>(x, delta, scale, eps, place, {});
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& scale, double eps) {
    if (fits_kernel(x, {scale}) && x.scalar_type() == at::kFloat) {
      auto sizes = x.sizes().vec();
      sizes.back() = 1;
      const Tensor rms = at::empty(sizes, x.options());
      const Tensor y = by_rows<float>(x, {}, scale, eps, Epsilon::outside, rms).normed;
      ctx->save_for_backward({x, scale, rms, (rms + eps).reciprocal_()});
      return y;
    }
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
  if (const auto out = by_cpu_kernel(x, {}, scale, eps, place)) return out->normed;
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
  if (const auto out = by_cpu_kernel(x, delta, scale, eps, place)) return *out;
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
