// Multilayer perceptrons with a gate. Member names are checkpoint names: Evo-2's, or Hugging Face's for what
// only its models have.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "focus/nn/linear.h"
#include "focus/ops/gate.h"

namespace focus::nn {

/// l3(act(l1(x)) * l2(x)), with `residual` added if it is defined; act is exact (erf) GELU or the identity.
class GatedMlp : public torch::nn::Module {
 public:
  GatedMlp(int64_t width, int64_t inner, ops::Gate act);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual = {}) const;
  std::shared_ptr<Linear> l1, l2, l3;

 private:
  ops::Gate act_;
};

/// down_proj(silu(gate_proj(x)) * up_proj(x)), with `residual` added if it is defined.
class SwiGluMlp : public torch::nn::Module {
 public:
  SwiGluMlp(int64_t width, int64_t inner, bool with_bias);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual = {}) const;
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

}  // namespace focus::nn
