#include "focus/kernels/cuda/rms_norm.h"

#include "focus/core/error.h"
#include "kernels/buffer.h"

namespace focus::testing {
namespace {

struct NormShape {
  int64_t rows, width;
};
void PrintTo(const NormShape& s, std::ostream* out) { *out << s.rows << "x" << s.width; }

constexpr double kEps = 1e-2;  // large enough to show where it stands

class RmsNormKernelTest : public KernelTestWithParam<std::tuple<NormShape, bool>> {};

template <class T>
void check(const NormShape& shape, bool inside, bool with_delta) {
  const auto [rows, width] = shape;
  const int64_t size = rows * width,
                parts = (rows + kernels::cuda::kScaleRows - 1) / kernels::cuda::kScaleRows;
  Buffer<T> x(size), delta(size), scale(width), y(size), dy(size), dsum(size), dx(size), before(size);
  Buffer<float> root(rows), part(parts * width);
  x.randomise(1);
  delta.randomise(2);
  scale.randomise(3, 0.5, 1.5);
  dy.randomise(4);
  dsum.randomise(5);
  std::copy(x.get(), x.get() + size, before.get());
  kernels::cuda::rms_norm<T>({.x = x,
                              .delta = with_delta ? delta.get() : nullptr,
                              .sum = with_delta ? x.get() : nullptr,
                              .scale = scale,
                              .y = y,
                              .root = root,
                              .rows = rows,
                              .width = width,
                              .eps = static_cast<float>(kEps),
                              .eps_inside = inside},
                             nullptr);
  kernels::cuda::rms_norm_gradient<T>({.x = x,
                                       .scale = scale,
                                       .root = root,
                                       .dy = dy,
                                       .dsum = with_delta ? dsum.get() : nullptr,
                                       .dx = dx,
                                       .rows = rows,
                                       .width = width,
                                       .eps = static_cast<float>(kEps),
                                       .eps_inside = inside},
                                      nullptr);
  kernels::cuda::rms_norm_scale_gradient<T>(x, dy, root, part, rows, width, nullptr);
  finish_kernels();

  const auto d = static_cast<double>(width);
  // Sums of `width` terms, spread over 256 threads.
  const double error = (d / 256 + 16) * kRounding<float>;
  std::vector<double> dscale(static_cast<std::size_t>(parts * width)), dscale_size(dscale);
  for (int64_t r = 0; r < rows; ++r) {
    const std::string where = concat("[", r, ", ");
    double squares = 0, dot = 0, dot_size = 0;
    for (int64_t c = 0; c < width; ++c) {
      const int64_t i = r * width + c;
      if (with_delta) {
        T sum;
        set(sum, static_cast<float>(value(before[i])) + static_cast<float>(value(delta[i])));
        EXPECT_EQ(value(x[i]), value(sum)) << "sum" << where << c << "]";
      }
      squares += value(x[i]) * value(x[i]);
      const double term = value(dy[i]) * value(scale[c]) * value(x[i]);
      dot += term, dot_size += std::abs(term);
    }
    const double eps = static_cast<float>(kEps),
                 exact = inside ? std::sqrt(squares / d + eps) : std::sqrt(squares / d) + eps,
                 length = inside ? exact : exact - eps;
    expect_within(root[r], exact, error * exact, concat("root[", r, "]"));
    for (int64_t c = 0; c < width; ++c) {
      const int64_t i = r * width + c;
      const std::string at = concat(where, c, "]");
      // With the epsilon inside, x / root is rounded before it is scaled.
      const double normed = value(x[i]) / exact;
      expect_within(value(y[i]), normed * value(scale[c]),
                    ((inside ? 2.01 : 1.01) * kRounding<T> + error) * std::abs(normed * value(scale[c])),
                    "y" + at);
      const double along = value(dy[i]) * value(scale[c]) / exact,
                   across = value(x[i]) * dot / (d * length * exact * exact),
                   rest = with_delta ? value(dsum[i]) : 0, dx_exact = along - across + rest,
                   across_size = std::abs(value(x[i])) * dot_size / (d * length * exact * exact);
      expect_within(value(dx[i]), dx_exact,
                    1.01 * kRounding<T> * std::abs(dx_exact) +
                        4 * error * (std::abs(along) + across_size + std::abs(rest)),
                    "dx" + at);
      const auto to = static_cast<std::size_t>(r / kernels::cuda::kScaleRows * width + c);
      dscale[to] += value(dy[i]) * normed, dscale_size[to] += std::abs(value(dy[i]) * normed);
    }
  }
  for (int64_t i = 0; i < parts * width; ++i)
    expect_within(part[i], dscale[static_cast<std::size_t>(i)],
                  (error + 20 * kRounding<float>)*dscale_size[static_cast<std::size_t>(i)],
                  concat("dscale[", i, "]"));
}

TEST_P(RmsNormKernelTest, NormAndGradientEqualTheFormula) {
  const auto [shape, inside] = GetParam();
  check<float>(shape, inside, false);
  check<Bf16>(shape, inside, false);
  check<float>(shape, inside, true);
  check<Bf16>(shape, inside, true);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, RmsNormKernelTest,
                         ::testing::Combine(::testing::Values(NormShape{1, 1}, NormShape{3, 7},
                                                              NormShape{130, 24}, NormShape{257, 5},
                                                              NormShape{2, 4096}, NormShape{2, 4097},
                                                              NormShape{3, 8200}),
                                            ::testing::Bool()));

class RmsNormKernelEdgeTest : public KernelTest {};

TEST_F(RmsNormKernelEdgeTest, MoreRowsThanAGridHasBlocks) { check<Bf16>({4099, 8}, false, false); }

TEST_F(RmsNormKernelEdgeTest, ARowOfZerosHasZeroOutputAndAFiniteGradient) {
  for (const bool inside : {false, true}) {
    Buffer<float> x(8), scale(8), y(8), root(1), dy(8), dx(8);
    x.fill(0.f), scale.fill(1.f), dy.fill(1.f);
    kernels::cuda::RmsNorm<float> args{};
    args.x = x, args.scale = scale, args.y = y, args.root = root, args.rows = 1, args.width = 8;
    args.eps = 1e-6f, args.eps_inside = inside;
    kernels::cuda::rms_norm(args, nullptr);
    kernels::cuda::RmsNormGradient<float> back{};
    back.x = x, back.scale = scale, back.root = root, back.dy = dy, back.dx = dx, back.rows = 1,
    back.width = 8;
    back.eps = 1e-6f, back.eps_inside = inside;
    kernels::cuda::rms_norm_gradient(back, nullptr);
    finish_kernels();
    for (int64_t i = 0; i < 8; ++i) {
      EXPECT_EQ(y[i], 0.f);
      const double expected = inside ? 1e3 : 1e6;
      expect_within(dx[i], expected, expected * 1e-5, "dx");
    }
  }
}

}  // namespace
}  // namespace focus::testing
