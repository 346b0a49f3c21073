#include "support/tensors.h"

#include <torch/csrc/autograd/autograd.h>

#include <limits>

namespace focus::testing {

using at::Tensor;

double max_difference(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes() || !at::isfinite(a).all().item<bool>() || !at::isfinite(b).all().item<bool>())
    return std::numeric_limits<double>::infinity();
  return a.numel() == 0 ? 0.0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

double error_in_roundings(const Tensor& got, const Tensor& exact, const Tensor& magnitude) {
  const Tensor here = got.to(at::kCPU, at::kDouble);
  if (here.sizes() != exact.sizes() || !at::isfinite(here).all().item<bool>())
    return std::numeric_limits<double>::infinity();
  const double unit = got.scalar_type() == at::kBFloat16 ? 0x1p-8
                      : got.scalar_type() == at::kFloat  ? 0x1p-24
                                                         : 0x1p-53;
  return ((here - exact).abs() / (magnitude * unit)).max().item<double>();
}

double relative_rms(const Tensor& a, const Tensor& b) {
  const Tensor wide = b.to(at::kDouble);
  return ((a.to(at::kDouble) - wide).square().mean() / wide.square().mean()).sqrt().item<double>();
}

void expect_gradient_matches(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                             std::vector<Tensor> inputs, double tolerance) {
  for (Tensor& input : inputs) {
    ASSERT_EQ(input.scalar_type(), at::kDouble);
    input = input.detach().clone().set_requires_grad(true);
  }
  const Tensor out = f(inputs);
  const Tensor weighting = at::randn(out.sizes(), out.options());
  const auto value = [&](const std::vector<Tensor>& at_inputs) {
    return (f(at_inputs).detach() * weighting).sum().item<double>();
  };
  const auto gradients = torch::autograd::grad({(out * weighting).sum()}, {inputs.begin(), inputs.end()});
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(gradients[i].defined()) << "input " << i;
    const Tensor direction = at::randn(inputs[i].sizes(), inputs[i].options());
    const double analytic = (gradients[i] * direction).sum().item<double>();
    at::NoGradGuard guard;
    constexpr double kStep = 1e-5;
    std::vector<Tensor> up = inputs, down = inputs;
    up[i] = inputs[i] + kStep * direction;
    down[i] = inputs[i] - kStep * direction;
    const double numeric = (value(up) - value(down)) / (2 * kStep);
    EXPECT_NEAR(analytic, numeric, tolerance * (1 + std::abs(numeric)))
        << "input " << i << " of shape " << inputs[i].sizes();
  }
}

}  // namespace focus::testing
