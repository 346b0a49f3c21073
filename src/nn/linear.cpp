#include "focus/nn/linear.h"

#include <algorithm>
#include <cmath>

#include "focus/core/error.h"
#include "focus/nn/parameter.h"
#include "focus/ops/fp8_linear.h"
#include "focus/ops/linear.h"

namespace focus::nn {

using at::Tensor;

Linear::Linear(int64_t in, int64_t out, bool with_bias) {
  weight = register_parameter("weight", new_parameter({out, in}));
  if (with_bias) bias = register_parameter("bias", new_parameter({out}));
}

Tensor Linear::forward(const Tensor& x, const Tensor& residual) const {
  if (plain()) return ops::linear(x, weight, bias, residual);
  Tensor y;
  if (!fp8_) {
    y = ops::linear(x, weight, bias);
  } else {
    FOCUS_CHECK(!weight.requires_grad(), "a weight that is used in FP8 cannot be trained");
    const Tensor rounded = weight_e4m3_.device() == x.device() ? weight_e4m3_ : weight_e4m3_.to(x.device());
    y = ops::fp8_linear(x, rounded, bias, fp8_->input, fp8_->weight);
  }
  if (lora_down.defined()) y = y + low_rank(x, lora_up);
  return residual.defined() ? residual + y : y;
}

void Linear::add_low_rank(int64_t rank, double scale, at::Generator& generator) {
  const int64_t out = weight.size(0), in = weight.size(1);
  if (rank > std::min(in, out))
    fail<ConfigError>("a change of rank ", rank, " exceeds a linear layer of ", in, " inputs and ", out,
                      " outputs");
  const auto drawn = at::randn({rank, in}, generator, at::kFloat) / std::sqrt(static_cast<double>(in));
  lora_down = register_parameter("lora_down", drawn.to(weight.device()));
  lora_up = register_parameter("lora_up", at::zeros({out, rank}, at::kFloat).to(weight.device()));
  lora_scale_ = scale;
}

Tensor Linear::forward_rows(const Tensor& x, const std::function<Tensor(const Tensor&)>& view) const {
  const Tensor y = ops::linear_of_rows(x, view(weight), bias.defined() ? view(bias) : bias);
  return lora_down.defined() ? y + low_rank(x, view(lora_up).flatten(0, 1)) : y;
}

Tensor Linear::low_rank(const Tensor& x, const Tensor& up) const {
  const auto type = x.scalar_type();
  return at::linear(at::linear(x, lora_down.to(type)), up.to(type)) * lora_scale_;
}

void Linear::share_fp8(const Linear& other) {
  fp8_ = other.fp8_;
  weight_e4m3_ = other.weight_e4m3_;
}

void Linear::emulate_fp8(const Fp8Scales& scales) {
  weight_e4m3_ = ops::to_e4m3(weight.detach(), scales.weight);
  fp8_ = scales;
}

Embedding::Embedding(int64_t vocabulary, int64_t width) {
  weight = register_parameter("weight", new_parameter({vocabulary, width}));
}

}  // namespace focus::nn
