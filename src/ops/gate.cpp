#include "focus/ops/gate.h"

#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/ops/tracked.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct DeviceGate : torch::autograd::Function<DeviceGate> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, const Tensor& b, int64_t act) {
    ctx->save_for_backward({a, b});
    ctx->saved_data["act"] = act;
    return device_kernels(a)->gate(a, b, static_cast<Gate>(act));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto act = static_cast<Gate>(ctx->saved_data["act"].toInt());
    const auto [da, db] = device_kernels(saved[0])->gate_gradient(saved[0], saved[1], grads[0], act);
    return {da, db, Tensor()};
  }
};

}  // namespace

Tensor gated(const Tensor& a, const Tensor& b, Gate act) {
  if (const DeviceKernels* kernels = float_kernels({a, b}); kernels != nullptr && a.sizes() == b.sizes())
    return tracked({a, b}) ? DeviceGate::apply(a, b, static_cast<int64_t>(act)) : kernels->gate(a, b, act);
  return (act == Gate::gelu ? at::gelu(a) : act == Gate::silu ? at::silu(a) : a) * b;
}

}  // namespace focus::ops
