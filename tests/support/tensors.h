// Comparing tensors and checking gradients in tests.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

namespace focus::testing {

/// Largest |a - b| over everything, in fp64; infinite where shapes differ or a value is not finite.
double max_difference(const at::Tensor& a, const at::Tensor& b);
/// Largest |got - exact| in units of what one rounding to got's type costs at `magnitude`, the size of what
/// was added up. `exact` and `magnitude` are fp64 on the CPU, `got` on any device; infinite where shapes
/// differ or a value is not finite.
double error_in_roundings(const at::Tensor& got, const at::Tensor& exact, const at::Tensor& magnitude);
/// sqrt(mean (a-b)^2 / mean b^2).
double relative_rms(const at::Tensor& a, const at::Tensor& b);

/// Compares d f(inputs) along random directions with central differences, in fp64. `f` returns any tensor; a
/// fixed random weighting makes it a scalar. Every input that requires a gradient is checked on its own.
void expect_gradient_matches(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f,
                             std::vector<at::Tensor> inputs, double tolerance = 1e-6);

}  // namespace focus::testing
