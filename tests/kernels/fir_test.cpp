#include "focus/kernels/cuda/fir.h"

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

struct FirShape {
  int64_t batch, length, channels, taps, run = 1;
  bool skip = false, reversed = false;
  int64_t gap = 0;  // values between batches
};
void PrintTo(const FirShape& s, std::ostream* out) {
  *out << "B" << s.batch << " L" << s.length << " C" << s.channels << " K" << s.taps << " run " << s.run
       << (s.skip ? " skip" : "") << (s.reversed ? " reversed" : "") << " gap " << s.gap;
}

class FirKernelTest : public KernelTestWithParam<FirShape> {};

template <class T>
void expect_the_sum(const FirShape& s) {
  const int64_t rows = s.length + s.taps - 1, x_batch = rows * s.channels + s.gap,
                filters = s.channels / s.run, skip_lag = s.reversed ? s.taps - 1 : 0;
  Buffer<T> x(s.batch * x_batch), w(s.taps * filters), skip(s.channels), y(s.batch * s.length * s.channels);
  x.randomise(1);
  w.randomise(2);
  skip.randomise(3);
  // Either [taps, channels], or for each filter its taps from the newest on.
  const kernels::cuda::Taps<T> filter =
      s.reversed ? kernels::cuda::Taps<T>{w + s.taps - 1, s.taps, -1, s.taps, s.run}
                 : kernels::cuda::Taps<T>{w, s.taps, filters, 1, s.run};
  kernels::cuda::fir_forward<T>(
      {x, x_batch, filter, s.skip ? skip.get() : nullptr, skip_lag, y, s.batch, s.length, s.channels},
      nullptr);
  finish_kernels();
  for (int64_t i = 0; i < y.size(); ++i) {
    const int64_t c = i % s.channels, t = i / s.channels % s.length, b = i / s.channels / s.length;
    const auto at = [&](int64_t row) { return value(x[b * x_batch + row * s.channels + c]); };
    double sum = 0, size = 0;
    const auto add = [&](double term) { sum += term, size += std::abs(term); };
    for (int64_t j = 0; j < s.taps; ++j)
      add(value(s.reversed ? w[c / s.run * s.taps + s.taps - 1 - j] : w[j * filters + c / s.run]) *
          at(t + j));
    if (s.skip) add(value(skip[c]) * at(t + s.taps - 1 - skip_lag));
    expect_within(value(y[i]), sum,
                  static_cast<double>(s.taps + 1) * kRounding<float> * size + kRounding<T> * std::abs(sum),
                  "y[" + std::to_string(i) + "]");
  }
}

TEST_P(FirKernelTest, ForwardEqualsTheSumInFp32) { expect_the_sum<float>(GetParam()); }
TEST_P(FirKernelTest, ForwardEqualsTheSumInBf16) { expect_the_sum<Bf16>(GetParam()); }

template <class T>
void expect_the_gradient_of_taps(const FirShape& s) {
  const int64_t rows = s.length + s.taps - 1, x_batch = rows * s.channels + s.gap,
                dy_batch = s.length * s.channels + s.gap, stretches = kernels::cuda::fir_stretches(s.length);
  Buffer<T> x(s.batch * x_batch), dy(s.batch * dy_batch);
  Buffer<float> partial(s.batch * stretches * s.taps * s.channels);
  x.randomise(1);
  dy.randomise(2);
  kernels::cuda::fir_taps_gradient<T>(
      {x, x_batch, dy, dy_batch, partial, s.batch, s.length, s.taps, s.channels}, nullptr);
  finish_kernels();
  for (int64_t i = 0; i < s.taps * s.channels; ++i) {
    const int64_t j = i / s.channels, c = i % s.channels;
    double sum = 0, size = 0, got = 0;
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t t = 0; t < s.length; ++t) {
        const double term =
            value(dy[b * dy_batch + t * s.channels + c]) * value(x[b * x_batch + (t + j) * s.channels + c]);
        sum += term, size += std::abs(term);
      }
    }
    for (int64_t part = 0; part < s.batch * stretches; ++part)
      got += static_cast<double>(partial[part * s.taps * s.channels + i]);
    expect_within(got, sum, static_cast<double>(std::min<int64_t>(s.length, 1024)) * kRounding<float> * size,
                  "dtaps[" + std::to_string(i) + "]");
  }
}

TEST_P(FirKernelTest, PartsAddUpToTheGradientOfTapsInFp32) { expect_the_gradient_of_taps<float>(GetParam()); }
TEST_P(FirKernelTest, PartsAddUpToTheGradientOfTapsInBf16) { expect_the_gradient_of_taps<Bf16>(GetParam()); }

std::vector<FirShape> fir_shapes() {
  std::vector<FirShape> shapes{
      {1, 33, 129, 128},
      {3, 70, 5, 7},
      {65537, 1, 1, 2},
      {1, 65536 * 8 + 3, 1, 2},
      {2, 19, 6, 5, 2, true, true, 7},
      {1, 2, 1, 1, 1, true},
      // On tensor cores in bf16; in accesses of 16 bytes or not, over several stretches.
      {2, 1, 16, 128, 16, true},
      {2, 45, 96, 128, 16, false, true, 8},
      {1, 45, 96, 129, 32, true, true, 3},
      {1, 1100, 16, 17, 16, true, true},
      {1, 1100, 16, 128, 16}};
  for (int64_t length = 1; length <= 17; ++length) shapes.push_back({2, length, 130, 3});
  return shapes;
}
INSTANTIATE_TEST_SUITE_P(OddSizes, FirKernelTest, ::testing::ValuesIn(fir_shapes()));

}  // namespace
}  // namespace focus::testing
