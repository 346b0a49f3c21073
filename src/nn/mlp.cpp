#include "focus/nn/mlp.h"

namespace focus::nn {

using at::Tensor;

GatedMlp::GatedMlp(int64_t width, int64_t inner, Activation activation) : activation_(activation) {
  l1 = register_module("l1", std::make_shared<Linear>(width, inner, false));
  l2 = register_module("l2", std::make_shared<Linear>(width, inner, false));
  l3 = register_module("l3", std::make_shared<Linear>(inner, width, false));
}

Tensor GatedMlp::forward(const Tensor& x) const {
  const Tensor gate = l1->forward(x);
  return l3->forward((activation_ == Activation::gelu ? at::gelu(gate) : gate) * l2->forward(x));
}

SwiGluMlp::SwiGluMlp(int64_t width, int64_t inner, bool with_bias) {
  gate_proj = register_module("gate_proj", std::make_shared<Linear>(width, inner, with_bias));
  up_proj = register_module("up_proj", std::make_shared<Linear>(width, inner, with_bias));
  down_proj = register_module("down_proj", std::make_shared<Linear>(inner, width, with_bias));
}

Tensor SwiGluMlp::forward(const Tensor& x) const {
  return down_proj->forward(at::silu(gate_proj->forward(x)) * up_proj->forward(x));
}

}  // namespace focus::nn
