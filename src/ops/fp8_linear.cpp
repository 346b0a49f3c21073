#include "focus/ops/fp8_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "device_kernels.h"
#include "focus/core/error.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kLargestE4m3 = 448.0;
// Rows of the weight that exist in the wide type at the same time: 1024 x 8192 fp32 are 32 MiB.
constexpr int64_t kRows = 1024;

at::ScalarType wide_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

bool is_power_of_two(double value) {
  int exponent = 0;
  return std::frexp(value, &exponent) == 0.5;
}

// By the device's own units; 16 numbers are 16 bytes there, which both sizes of the weight must be multiples
// of.
bool has_units(const Tensor& x, const Tensor& weight) {
  const DeviceKernels* kernels = float_kernels({x});
  return kernels != nullptr && weight.device() == x.device() && weight.size(0) % 16 == 0 &&
         weight.size(1) % 16 == 0 && kernels->multiplies_e4m3(x.device());
}
Tensor multiply_by_units(const Tensor& input, const Tensor& weight, double unscale, at::ScalarType type) {
  const auto options = input.options().dtype(at::kFloat);
  const Tensor y = at::_scaled_mm(input.reshape({-1, input.size(-1)}), weight.t(),
                                  at::full({}, unscale, options), at::ones({}, options), {}, {}, type);
  auto sizes = input.sizes().vec();
  sizes.back() = weight.size(0);
  return y.view(sizes);
}

// In x's type or, where a bias is still to be added, in a wider one.
Tensor multiply(const Tensor& x, const Tensor& weight, double input_scale, double weight_scale, bool wider) {
  const double unscale = 1.0 / (input_scale * weight_scale);
  const Tensor input = to_e4m3(x, input_scale);
  if (has_units(x, weight))
    return multiply_by_units(input, weight, unscale, wider ? at::kFloat : x.scalar_type());
  // e4m3 is exact in bf16, and a power of two changes no digit: the matrix product may then round its sum to
  // bf16 itself.
  const bool narrow = x.scalar_type() == at::kBFloat16 && is_power_of_two(unscale);
  const auto compute = narrow ? at::kBFloat16 : wide_type(x);
  const Tensor wide = input.to(compute);
  std::vector<Tensor> parts;
  for (int64_t row = 0; row < weight.size(0); row += kRows)
    parts.push_back(
        at::linear(wide, weight.narrow(0, row, std::min(kRows, weight.size(0) - row)).to(compute)));
  return (parts.size() == 1 ? parts[0] : at::cat(parts, -1)).mul_(unscale);
}

struct Fp8Linear : torch::autograd::Function<Fp8Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double input_scale,
                        double weight_scale, bool wider) {
    ctx->save_for_backward({weight});
    ctx->saved_data["weight_scale"] = weight_scale;
    ctx->saved_data["type"] = static_cast<int64_t>(x.scalar_type());
    return multiply(x, weight, input_scale, weight_scale, wider);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor weight = ctx->get_saved_variables()[0], dy = grads[0];
    const auto compute = wide_type(dy);
    Tensor dx;
    for (int64_t row = 0; row < weight.size(0); row += kRows) {
      const int64_t rows = std::min(kRows, weight.size(0) - row);
      const Tensor part =
          at::matmul(dy.narrow(-1, row, rows).to(compute), weight.narrow(0, row, rows).to(compute));
      dx = dx.defined() ? dx.add_(part) : part;
    }
    dx.div_(ctx->saved_data["weight_scale"].toDouble());
    return {dx.to(static_cast<at::ScalarType>(ctx->saved_data["type"].toInt())), Tensor(), Tensor(), Tensor(),
            Tensor()};
  }
};

}  // namespace

Tensor to_e4m3(const Tensor& t, double scale) {
  if (!(scale > 0.0) || !std::isfinite(scale))
    fail<WeightsError>("an FP8 scale must be positive and finite, got ", scale);
  if (const DeviceKernels* kernels = float_kernels({t}); kernels != nullptr)
    return kernels->to_e4m3(t, scale);
  // The product is rounded to fp32 first, as the scaling kernels of FP8 hardware do.
  return (t.to(wide_type(t)) * scale).clamp_(-kLargestE4m3, kLargestE4m3).to(at::kFloat8_e4m3fn);
}

Tensor fp8_linear(const Tensor& x, const Tensor& weight_e4m3, const Tensor& bias, double input_scale,
                  double weight_scale) {
  if (weight_e4m3.dim() != 2 || weight_e4m3.scalar_type() != at::kFloat8_e4m3fn ||
      x.size(-1) != weight_e4m3.size(1))
    fail<ShapeError>("fp8_linear: the weight must be e4m3 [out, in] with in = ", x.size(-1), ", got ",
                     weight_e4m3.dtype(), " ", weight_e4m3.sizes());
  Tensor y = Fp8Linear::apply(x, weight_e4m3, input_scale, weight_scale, bias.defined());
  if (bias.defined()) y = y + bias.to(y.scalar_type());
  return y.to(x.scalar_type());
}

}  // namespace focus::ops
