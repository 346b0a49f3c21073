#include "focus/nn/rms_norm.h"

#include "focus/nn/parameter.h"

namespace focus::nn {

using at::Tensor;

RmsNorm::RmsNorm(int64_t width, double eps, Epsilon place) : eps_(eps), place_(place) {
  scale = register_parameter(place == Epsilon::inside ? "weight" : "scale", new_parameter({width}, 1.0));
}

Tensor RmsNorm::forward(const Tensor& x) const { return ops::rms_norm(x, scale, eps_, place_); }

ops::SummedNorm RmsNorm::add(const Tensor& x, const Tensor& delta) const {
  return ops::add_rms_norm(x, delta, scale, eps_, place_);
}

}  // namespace focus::nn
