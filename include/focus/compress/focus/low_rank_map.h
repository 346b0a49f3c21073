// Trained maps of Focus units.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

namespace focus::compress {

/// Trained linear map out of D inputs: a full matrix starting at zero, or up * down with `up` starting at
/// zero.
class LowRankMap : public torch::nn::Module {
 public:
  LowRankMap(int64_t in, int64_t out, int64_t rank);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor matrix() const;
  at::Tensor full, down, up;
};

}  // namespace focus::compress
