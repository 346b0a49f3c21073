// Multilayer perceptrons with a gate. Member names are checkpoint names: Evo-2's, or Hugging Face's for what
// only its models have.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "focus/nn/linear.h"

namespace focus::nn {

enum class Activation { identity, gelu };

/// l3(act(l1(x)) * l2(x)); act is exact (erf) GELU or the identity.
class GatedMlp : public torch::nn::Module {
 public:
  GatedMlp(int64_t width, int64_t inner, Activation activation);
  at::Tensor forward(const at::Tensor& x) const;
  std::shared_ptr<Linear> l1, l2, l3;

 private:
  Activation activation_;
};

/// down_proj(silu(gate_proj(x)) * up_proj(x)).
class SwiGluMlp : public torch::nn::Module {
 public:
  SwiGluMlp(int64_t width, int64_t inner, bool with_bias);
  at::Tensor forward(const at::Tensor& x) const;
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

}  // namespace focus::nn
