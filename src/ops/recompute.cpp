#include "focus/ops/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Closure : torch::CustomClassHolder {
  Closure(TensorFunction function, bool with_anchor) : f(std::move(function)), anchored(with_anchor) {}
  std::vector<Tensor> operator()(variable_list inputs) const {
    if (anchored) inputs.pop_back();
    return f(inputs);
  }
  TensorFunction f;
  bool anchored;  // the last input is not f's
};

struct Recompute : torch::autograd::Function<Recompute> {
  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Closure>& closure,
                               at::TensorList list) {
    const variable_list inputs = list.vec();
    ctx->saved_data["f"] = c10::IValue::make_capsule(closure);
    ctx->save_for_backward(inputs);
    ctx->set_materialize_grads(false);  // an output that nobody used reaches no parameter
    const at::NoGradGuard guard;
    return (*closure)(inputs);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto closure = c10::static_intrusive_pointer_cast<Closure>(ctx->saved_data["f"].toCapsule());
    variable_list inputs;
    for (const Tensor& saved : ctx->get_saved_variables()) {
      inputs.push_back(saved.detach());
      if (saved.requires_grad()) inputs.back().set_requires_grad(true);
    }
    const at::AutoGradMode record(true);
    const variable_list outputs = (*closure)(inputs);
    variable_list reached, arriving;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
      reached.push_back(outputs[i]);
      arriving.push_back(grads[i]);
    }
    if (!reached.empty()) torch::autograd::backward(reached, arriving);
    variable_list out = {Tensor()};  // the closure has none
    for (const Tensor& input : inputs) out.push_back(input.grad());
    return out;
  }
};

}  // namespace

std::vector<Tensor> recomputed(TensorFunction f, const std::vector<Tensor>& inputs, bool has_parameters) {
  const bool tracked =
      std::any_of(inputs.begin(), inputs.end(), [](const Tensor& t) { return t.requires_grad(); });
  if (!at::GradMode::is_enabled() || (!tracked && !has_parameters)) return f(inputs);
  variable_list given = inputs;
  // Something has to ask for the backward pass that reaches the parameters.
  if (!tracked) given.push_back(at::zeros({0}).set_requires_grad(true));
  return Recompute::apply(c10::make_intrusive<Closure>(std::move(f), !tracked), at::TensorList(given));
}

}  // namespace focus::ops
