#include "focus/nn/mlp.h"

#include "focus/ops/linear.h"

namespace focus::nn {

using at::Tensor;
namespace {

Tensor gated(const Linear& gate, const Linear& up, const Tensor& x, ops::Gate act) {
  if (gate.plain() && up.plain())
    return ops::gated_linear(x, gate.weight, gate.bias, up.weight, up.bias, act);
  const Tensor a = gate.forward(x);
  return ops::gated(a, up.forward(x), act);
}

}  // namespace

GatedMlp::GatedMlp(int64_t width, int64_t inner, ops::Gate act) : act_(act) {
  l1 = register_module("l1", std::make_shared<Linear>(width, inner, false));
  l2 = register_module("l2", std::make_shared<Linear>(width, inner, false));
  l3 = register_module("l3", std::make_shared<Linear>(inner, width, false));
}

Tensor GatedMlp::forward(const Tensor& x, const Tensor& residual) const {
  return l3->forward(gated(*l1, *l2, x, act_), residual);
}

SwiGluMlp::SwiGluMlp(int64_t width, int64_t inner, bool with_bias) {
  gate_proj = register_module("gate_proj", std::make_shared<Linear>(width, inner, with_bias));
  up_proj = register_module("up_proj", std::make_shared<Linear>(width, inner, with_bias));
  down_proj = register_module("down_proj", std::make_shared<Linear>(inner, width, with_bias));
}

Tensor SwiGluMlp::forward(const Tensor& x, const Tensor& residual) const {
  return down_proj->forward(gated(*gate_proj, *up_proj, x, ops::Gate::silu), residual);
}

}  // namespace focus::nn
