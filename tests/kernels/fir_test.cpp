#include "focus/kernels/cuda/fir.h"

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

struct FirShape {
  int64_t batch, length, channels, taps;
};
void PrintTo(const FirShape& s, std::ostream* out) {
  *out << "B" << s.batch << " L" << s.length << " C" << s.channels << " K" << s.taps;
}

class FirKernelTest : public KernelTestWithParam<FirShape> {};

TEST_P(FirKernelTest, ForwardEqualsTheSum) {
  const auto [batch, length, channels, taps] = GetParam();
  const int64_t rows = length + taps - 1;
  Buffer<float> x(batch * rows * channels), w(taps * channels), y(batch * length * channels);
  x.randomise(1);
  w.randomise(2);
  kernels::cuda::fir_forward(x, w, y, batch, length, taps, channels, nullptr);
  finish_kernels();
  for (int64_t i = 0; i < y.size(); ++i) {
    const int64_t c = i % channels, t = i / channels % length, b = i / channels / length;
    double sum = 0, size = 0;
    for (int64_t j = 0; j < taps; ++j) {
      const double term = value(w[j * channels + c]) * value(x[(b * rows + t + j) * channels + c]);
      sum += term, size += std::abs(term);
    }
    expect_within(y[i], sum, static_cast<double>(taps) * kRounding<float> * size,
                  "y[" + std::to_string(i) + "]");
  }
}

std::vector<FirShape> fir_shapes() {
  std::vector<FirShape> shapes{{1, 33, 129, 128}, {3, 70, 5, 7}, {65537, 1, 1, 2}, {1, 65536 * 8 + 3, 1, 2}};
  for (int64_t length = 1; length <= 17; ++length) shapes.push_back({2, length, 130, 3});
  return shapes;
}
INSTANTIATE_TEST_SUITE_P(OddSizes, FirKernelTest, ::testing::ValuesIn(fir_shapes()));

}  // namespace
}  // namespace focus::testing
