// The linear layer and the embedding. Member names are checkpoint names.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace focus::nn {

/// What a checkpoint trained in FP8 multiplies a layer's input and weight by before they are rounded.
struct Fp8Scales {
  double input = 1.0, weight = 1.0;
};

/// y = x W^T + b. `weight` [out, in]; `bias` [out] or undefined.
class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in, int64_t out, bool with_bias);
  /// With `residual` added, if it is defined.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual = {}) const;
  /// Whether it is x W^T + b alone: neither FP8 nor a low-rank change.
  bool plain() const { return !fp8_ && !lora_down.defined(); }
  /// From now on input and weight are rounded to FP8 (e4m3) as FP8 hardware would. The weight is rounded
  /// here, once: call it when the weight is in place, and do not train it afterwards.
  void emulate_fp8(const Fp8Scales& scales);
  const std::optional<Fp8Scales>& fp8() const { return fp8_; }
  /// Takes over what emulate_fp8() made of a layer with the same weight.
  void share_fp8(const Linear& other);
  /// From now on y = x W^T + b + scale * x down^T up^T (LoRA), in x's type. `down` is drawn, `up` starts at
  /// zero; both are fp32 parameters. ConfigError when the rank is larger than the weight.
  void add_low_rank(int64_t rank, double scale, at::Generator& generator);
  /// Only some output channels: `view` makes of a tensor [out, ..] the view [pieces, n, ..] of them. Never in
  /// FP8.
  at::Tensor forward_rows(const at::Tensor& x,
                          const std::function<at::Tensor(const at::Tensor&)>& view) const;
  at::Tensor weight, bias;
  at::Tensor lora_down, lora_up;  // [rank, in], [out, rank]; undefined without add_low_rank

 private:
  at::Tensor low_rank(const at::Tensor& x, const at::Tensor& up) const;
  double lora_scale_ = 1.0;
  std::optional<Fp8Scales> fp8_;
  at::Tensor weight_e4m3_;
};

/// `weight` [vocabulary, width].
class Embedding : public torch::nn::Module {
 public:
  Embedding(int64_t vocabulary, int64_t width);
  at::Tensor weight;
};

}  // namespace focus::nn
