#include "focus/nn/layers.h"

#include "focus/core/error.h"
#include "focus/ops/sequence.h"

namespace focus::nn {

using at::Tensor;

Linear::Linear(int64_t in, int64_t out, bool with_bias) {
  weight = register_parameter("weight", at::zeros({out, in}));
  if (with_bias) bias = register_parameter("bias", at::zeros({out}));
}

RmsNorm::RmsNorm(int64_t width, double eps) : eps_(eps) { scale = register_parameter("scale", at::ones({width})); }

Tensor RmsNorm::forward(const Tensor& x) const { return ops::rms_norm(x, scale, eps_); }

GatedMlp::GatedMlp(int64_t width, int64_t inner, Activation activation) : activation_(activation) {
  l1 = register_module("l1", std::make_shared<Linear>(width, inner, false));
  l2 = register_module("l2", std::make_shared<Linear>(width, inner, false));
  l3 = register_module("l3", std::make_shared<Linear>(inner, width, false));
}

Tensor GatedMlp::forward(const Tensor& x) const {
  const Tensor gate = l1->forward(x);
  return l3->forward((activation_ == Activation::gelu ? at::gelu(gate) : gate) * l2->forward(x));
}

}  // namespace focus::nn
