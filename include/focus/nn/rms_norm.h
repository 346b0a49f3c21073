// The norm before every block. Member names are checkpoint names.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>

#include "focus/ops/rms_norm.h"

namespace focus::nn {

using ops::Epsilon;

/// The checkpoint name of its parameter follows the epsilon's place: "scale" (outside) or "weight" (inside).

class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(int64_t width, double eps, Epsilon place = Epsilon::outside);
  at::Tensor forward(const at::Tensor& x) const;
  /// x + delta and its norm.
  ops::SummedNorm add(const at::Tensor& x, const at::Tensor& delta) const;
  at::Tensor scale;

 private:
  double eps_;
  Epsilon place_;
};

}  // namespace focus::nn
