#include "focus/kernels/cuda/linear.h"

#include "focus/core/error.h"
#include "kernels/buffer.h"

namespace focus::testing {
namespace {

using kernels::cuda::Gate;

struct FewRowsShape {
  int64_t rows, inputs, outputs, gap;  // the rows of x lie gap values apart
};
void PrintTo(const FewRowsShape& s, std::ostream* out) {
  *out << s.rows << " rows of " << s.inputs << " to " << s.outputs << " gap " << s.gap;
}
enum class With { nothing, bias_and_residual, gate, biased_gate };

struct Product {
  double value, size;  // size: the sum of the terms' sizes
};

class FewRowsKernelTest : public KernelTestWithParam<std::tuple<FewRowsShape, With>> {};

TEST_P(FewRowsKernelTest, EqualsTheProductRoundedOnce) {
  const auto [shape, with] = GetParam();
  const auto [rows, inputs, outputs, gap] = shape;
  const int64_t stride = inputs + gap;
  const bool gated = with == With::gate || with == With::biased_gate,
             biased = with == With::bias_and_residual || with == With::biased_gate,
             residual = with == With::bias_and_residual;
  Buffer<Bf16> x((rows - 1) * stride + inputs), w(outputs * inputs), u(outputs * inputs), bias(outputs),
      up_bias(outputs), rest(rows * outputs), y(rows * outputs);
  const double wide = 1 / std::sqrt(static_cast<double>(inputs));
  x.randomise(1);
  w.randomise(2, -3 * wide, 3 * wide);
  u.randomise(3, -3 * wide, 3 * wide);
  bias.randomise(4);
  up_bias.randomise(5);
  rest.randomise(6);
  kernels::cuda::few_rows({.x = x,
                           .weight = w,
                           .bias = biased ? bias.get() : nullptr,
                           .up = gated ? u.get() : nullptr,
                           .up_bias = with == With::biased_gate ? up_bias.get() : nullptr,
                           .residual = residual ? rest.get() : nullptr,
                           .y = y,
                           .rows = rows,
                           .x_stride = stride,
                           .inputs = inputs,
                           .outputs = outputs,
                           .act = Gate::silu},
                          nullptr);
  finish_kernels();
  const auto product = [&](const Buffer<Bf16>& weight, const Buffer<Bf16>& add, int64_t m, int64_t o) {
    Product p{biased ? value(add[o]) : 0, biased ? std::abs(value(add[o])) : 0};
    for (int64_t i = 0; i < inputs; ++i) {
      const double term = value(x[m * stride + i]) * value(weight[o * inputs + i]);
      p.value += term, p.size += std::abs(term);
    }
    return p;
  };
  // A tensor core may drop what is 2^-23 of the largest of the terms that it adds at once, and 16 of these
  // steps follow each other for every 512 inputs of a warp's share.
  const double error = (4 + static_cast<double>(inputs) / 16) * 0x1p-23;
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t o = 0; o < outputs; ++o) {
      const Product a = product(w, bias, m, o);
      double exact = a.value, bound = error * a.size;
      if (gated) {
        const Product b = product(u, up_bias, m, o);
        const double act = a.value / (1 + std::exp(-a.value));
        exact = act * b.value;
        // |silu'| < 1.1
        bound = 1.1 * error * a.size * std::abs(b.value) + error * b.size * std::abs(act) +
                8 * kRounding<float> * std::abs(exact);
      }
      if (residual) exact += value(rest[m * outputs + o]);
      expect_within(value(y[m * outputs + o]), exact, bound + kRounding<Bf16> * std::abs(exact) * 1.01,
                    concat("y[", m, ", ", o, "]"));
    }
}

INSTANTIATE_TEST_SUITE_P(
    OddSizes, FewRowsKernelTest,
    ::testing::Combine(::testing::Values(FewRowsShape{1, 1, 1, 0}, FewRowsShape{1, 31, 17, 1},
                                         FewRowsShape{2, 128, 16, 0}, FewRowsShape{3, 136, 33, 8},
                                         FewRowsShape{5, 1032, 18, 0}, FewRowsShape{7, 1160, 9, 3},
                                         FewRowsShape{8, 2048, 40, 0}, FewRowsShape{8, 1025, 31, 0}),
                       ::testing::Values(With::nothing, With::bias_and_residual, With::gate,
                                         With::biased_gate)));

class FewRowsKernelEdgeTest : public KernelTest {};

TEST_F(FewRowsKernelEdgeTest, ARowDoesNotDependOnTheOthers) {
  constexpr int64_t kRows = 8, kInputs = 520, kOutputs = 20;
  Buffer<Bf16> x(kRows * kInputs), w(kOutputs * kInputs), all(kRows * kOutputs), one(kOutputs);
  x.randomise(1);
  w.randomise(2);
  kernels::cuda::FewRows args{};
  args.x = x, args.weight = w, args.y = all, args.rows = kRows, args.x_stride = kInputs;
  args.inputs = kInputs, args.outputs = kOutputs;
  kernels::cuda::few_rows(args, nullptr);
  for (int64_t row = 0; row < kRows; ++row) {
    args.x = x + row * kInputs, args.y = one, args.rows = 1;
    kernels::cuda::few_rows(args, nullptr);
    finish_kernels();
    for (int64_t o = 0; o < kOutputs; ++o) EXPECT_EQ(one[o], all[row * kOutputs + o]) << row << ", " << o;
  }
}

TEST_F(FewRowsKernelEdgeTest, TheResidualMayBeTheOutput) {
  Buffer<Bf16> x(32), w(32), y(1);
  for (int64_t i = 0; i < 32; ++i) set(x[i], 1), set(w[i], 0.25);
  set(y[0], 3);
  kernels::cuda::FewRows args{};
  args.x = x, args.weight = w, args.y = y, args.residual = y, args.rows = 1, args.x_stride = 32;
  args.inputs = 32, args.outputs = 1;
  kernels::cuda::few_rows(args, nullptr);
  finish_kernels();
  EXPECT_EQ(value(y[0]), 11.0);
}

}  // namespace
}  // namespace focus::testing
