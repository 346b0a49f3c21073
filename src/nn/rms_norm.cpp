#include "focus/nn/rms_norm.h"

#include "focus/nn/parameter.h"
#include "focus/ops/rms_norm.h"

namespace focus::nn {

using at::Tensor;

RmsNorm::RmsNorm(int64_t width, double eps, Epsilon place) : eps_(eps), place_(place) {
  scale = register_parameter(place == Epsilon::inside ? "weight" : "scale", new_parameter({width}, 1.0));
}

Tensor RmsNorm::forward(const Tensor& x) const {
  if (place_ == Epsilon::outside) return ops::rms_norm(x, scale, eps_);
  const Tensor wide = x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return (wide * at::rsqrt(wide.square().mean(-1, true) + eps_)).to(x.scalar_type()) * scale;
}

}  // namespace focus::nn
