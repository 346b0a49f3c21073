#include "focus/kernels/cuda/gate.h"

#include "focus/core/error.h"
#include "kernels/buffer.h"

namespace focus::testing {
namespace {

using kernels::cuda::Gate;

// Rows start `offset` values into each array and lie `gap` values apart.
struct GateShape {
  int64_t rows, width, gap, offset;
};
void PrintTo(const GateShape& s, std::ostream* out) {
  *out << s.rows << "x" << s.width << " gap " << s.gap << " offset " << s.offset;
}

struct Act {
  double value, slope;
};
Act act(Gate gate, double x) {
  if (gate == Gate::gelu) {
    const double cdf = 0.5 * std::erfc(-x / std::sqrt(2.0));
    return {x * cdf, cdf + x * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI)};
  }
  if (gate == Gate::silu) {
    const double s = 1 / (1 + std::exp(-x));
    return {x * s, s * (1 + x * (1 - s))};
  }
  return {x, 1};
}

class GateKernelTest : public KernelTestWithParam<std::tuple<GateShape, Gate>> {};

template <class T>
void check(const GateShape& shape, Gate gate) {
  const auto [rows, width, gap, offset] = shape;
  const int64_t stride = width + gap, size = offset + rows * stride;
  Buffer<T> a(size), b(size), dy(size), y(size), da(size), db(size);
  a.randomise(1, -6, 6);
  b.randomise(2);
  dy.randomise(3);
  using In = kernels::cuda::Rows<const T>;
  using Out = kernels::cuda::Rows<T>;
  const In in_a{a + offset, stride}, in_b{b + offset, stride}, in_dy{dy + offset, stride};
  kernels::cuda::gate<T>(gate, in_a, in_b, Out{y + offset, stride}, rows, width, nullptr);
  kernels::cuda::gate_gradient<T>(gate, in_a, in_b, in_dy, Out{da + offset, stride}, Out{db + offset, stride},
                                  rows, width, nullptr);
  finish_kernels();
  for (int64_t i = 0; i < size; ++i) {
    const int64_t column = (i - offset) % stride;
    const std::string where = concat("[", i, "]");
    if (i < offset || column >= width) {  // between the rows nothing is written
      EXPECT_TRUE(std::isnan(value(y[i])) && std::isnan(value(da[i])) && std::isnan(value(db[i]))) << where;
      continue;
    }
    const double x = value(a[i]), u = value(b[i]), g = value(dy[i]);
    const Act f = act(gate, x);
    // 1 + erf(x) and 1 + exp(-x) leave an error of a few roundings of their terms, up to 6 in size here.
    const double own = 8 * kRounding<float> * std::max(1.0, std::abs(x));
    expect_within(value(y[i]), f.value * u, kRounding<T> * std::abs(f.value * u) + own * std::abs(u),
                  "y" + where);
    expect_within(value(da[i]), g * u * f.slope,
                  kRounding<T> * std::abs(g * u * f.slope) + own * std::abs(g * u), "da" + where);
    expect_within(value(db[i]), g * f.value, kRounding<T> * std::abs(g * f.value) + own * std::abs(g),
                  "db" + where);
  }
}

TEST_P(GateKernelTest, BothWaysEqualTheFormula) {
  const auto [shape, gate] = GetParam();
  check<float>(shape, gate);
  check<Bf16>(shape, gate);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, GateKernelTest,
                         ::testing::Combine(::testing::Values(GateShape{1, 1, 0, 0}, GateShape{3, 7, 0, 0},
                                                              GateShape{5, 8, 0, 0}, GateShape{2, 2056, 0, 0},
                                                              GateShape{3, 2056, 8, 16},
                                                              GateShape{3, 24, 8, 4}, GateShape{2, 24, 4, 0},
                                                              GateShape{4, 13, 11, 1}),
                                            ::testing::Values(Gate::identity, Gate::gelu, Gate::silu)));

class GateKernelEdgeTest : public KernelTest {};

TEST_F(GateKernelEdgeTest, MoreRowsThanAGridHasBlocks) { check<Bf16>({65537, 1, 1, 0}, Gate::identity); }

TEST_F(GateKernelEdgeTest, LargeInputsStayFinite) {
  Buffer<float> a(4), b(4), y(4);
  const float inputs[] = {-1e4f, -100.f, 100.f, 1e4f};
  for (int64_t i = 0; i < 4; ++i) a[i] = inputs[i], b[i] = 1.f;
  for (const Gate gate : {Gate::gelu, Gate::silu}) {
    kernels::cuda::gate<float>(gate, {a, 4}, {b, 4}, {y, 4}, 1, 4, nullptr);
    finish_kernels();
    for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(y[i], std::max(0.f, a[i]));
  }
}

}  // namespace
}  // namespace focus::testing
