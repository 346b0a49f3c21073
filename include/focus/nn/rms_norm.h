// The norm before every block. Member names are checkpoint names.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>

namespace focus::nn {

/// Where the norm's epsilon stands. outside (Evo-2): x / (rms(x) + eps) * scale, rounded once. inside
/// (Llama): x / sqrt(mean(x^2) + eps) in fp32, rounded to x's type, then times scale in that type. The
/// checkpoint names follow: "scale" or "weight".
enum class Epsilon { outside, inside };

class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(int64_t width, double eps, Epsilon place = Epsilon::outside);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor scale;

 private:
  double eps_;
  Epsilon place_;
};

}  // namespace focus::nn
