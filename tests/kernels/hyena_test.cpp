#include "focus/kernels/cuda/hyena.h"

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

struct HyenaShape {
  int64_t batch, length, channels, taps = 1, run = 1;
  bool state = false, skip = false;
  int64_t gap = 0;  // values between the rows of z; after its batches twice as many
};
void PrintTo(const HyenaShape& s, std::ostream* out) {
  *out << "B" << s.batch << " L" << s.length << " C" << s.channels << " K" << s.taps << " run " << s.run
       << (s.state ? " state" : "") << (s.skip ? " skip" : "") << " gap " << s.gap;
}

// The front of a mixer, in fp64 and without rounding; `size` bounds what |values| a number is the sum of.
struct Sized {
  double value = 0, size = 0;
  void add(double x, double magnitude) { value += x, size += magnitude; }
};
Sized operator*(const Sized& a, const Sized& b) { return {a.value * b.value, a.size * b.size}; }

template <class T>
struct Front {
  explicit Front(const HyenaShape& shape)
      : s(shape),
        row(3 * s.channels + s.gap),
        z_batch(s.length * row + 2 * s.gap),
        z(s.batch * z_batch),
        before(s.batch * 6 * s.channels),
        taps(9 * s.channels),
        last(s.batch * 6 * s.channels) {
    z.randomise(1);
    before.randomise(2);
    taps.randomise(3);
  }
  kernels::cuda::HyenaInput<T> input(bool with_last = true) {
    return {z,
            z_batch,
            row,
            s.state ? before.get() : nullptr,
            with_last ? last.get() : nullptr,
            taps,
            s.batch,
            s.length,
            s.channels};
  }
  double z_at(int64_t b, int64_t t, int64_t column) const {
    if (t >= 0) return value(z[b * z_batch + t * row + column]);
    return s.state && t >= -2 ? value(before[(b * 2 + 2 + t) * 3 * s.channels + column]) : 0;
  }
  Sized mixed(int64_t b, int64_t t, int64_t column) const {
    Sized sum;
    for (int64_t j = 0; j < 3; ++j) {
      const double term = value(taps[column * 3 + j]) * z_at(b, t - 2 + j, column);
      sum.add(term, std::abs(term));
    }
    return sum;
  }
  Sized x2(int64_t b, int64_t t, int64_t c) const { return mixed(b, t, 3 * c); }
  Sized x1(int64_t b, int64_t t, int64_t c) const { return mixed(b, t, 3 * c + 1); }
  Sized v(int64_t b, int64_t t, int64_t c) const { return mixed(b, t, 3 * c + 2); }
  Sized p(int64_t b, int64_t t, int64_t c) const { return x1(b, t, c) * v(b, t, c); }
  void expect_last() const {
    for (int64_t i = 0; i < last.size(); ++i)
      expect_within(value(last[i]),
                    z_at(i / (6 * s.channels), s.length - 2 + i / (3 * s.channels) % 2, i % (3 * s.channels)),
                    0, "last[" + std::to_string(i) + "]");
  }

  HyenaShape s;
  int64_t row, z_batch;
  Buffer<T> z, before, taps, last;
};

// x2, x1, v, p, the filter's output and y are rounded, each by half a unit of T; sums are in fp32.
template <class T>
double bound(const Sized& x, double roundings, double terms) {
  return x.size * (roundings * kRounding<T> + (terms + 16) * kRounding<float>);
}

class HyenaFirKernelTest : public KernelTestWithParam<HyenaShape> {};

template <class T>
void expect_the_gated_fir(const HyenaShape& s) {
  Front<T> front(s);
  const int64_t back = s.taps - 1, filters = s.channels / s.run;
  Buffer<T> carried(s.batch * back * s.channels + 1), new_carried(carried.size()), taps(s.taps * filters),
      skip(s.channels), y(s.batch * s.length * s.channels);
  carried.randomise(4);
  taps.randomise(5);
  skip.randomise(6);
  // hcm's filters lie newest tap first.
  kernels::cuda::hyena_fir<T>(front.input(),
                              {{taps + back, s.taps, -1, s.taps, s.run},
                               s.skip ? skip.get() : nullptr,
                               s.state ? carried.get() : nullptr,
                               new_carried},
                              y, nullptr);
  finish_kernels();
  front.expect_last();
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t c = 0; c < s.channels; ++c) {
      std::vector<Sized> p;  // from row -back on
      for (int64_t t = -back; t < s.length; ++t) {
        if (t >= 0) {
          p.push_back(front.p(b, t, c));
        } else {
          const double x = s.state ? value(carried[(b * back + back + t) * s.channels + c]) : 0;
          p.push_back({x, std::abs(x)});
        }
      }
      for (int64_t t = 0; t < s.length; ++t) {
        Sized sum;
        const auto add = [&](double by, const Sized& x) { sum.add(by * x.value, std::abs(by) * x.size); };
        for (int64_t lag = 0; lag <= back; ++lag)
          add(value(taps[c / s.run * s.taps + lag]), p[static_cast<size_t>(t + back - lag)]);
        if (s.skip) add(value(skip[c]), p[static_cast<size_t>(t + back)]);
        const Sized exact = front.x2(b, t, c) * sum;
        const int64_t i = (b * s.length + t) * s.channels + c;
        expect_within(value(y[i]), exact.value, bound<T>(exact, 6, static_cast<double>(s.taps)),
                      "y[" + std::to_string(i) + "]");
      }
      for (int64_t k = 0; k < back; ++k) {
        const int64_t i = (b * back + k) * s.channels + c;
        const Sized exact = p[static_cast<size_t>(s.length + k)];
        expect_within(value(new_carried[i]), exact.value, s.length + k < back ? 0 : bound<T>(exact, 3, 0),
                      "new_carried[" + std::to_string(i) + "]");
      }
    }
  }
}

TEST_P(HyenaFirKernelTest, EqualsTheGatedFilterInFp32) { expect_the_gated_fir<float>(GetParam()); }
TEST_P(HyenaFirKernelTest, EqualsTheGatedFilterInBf16) { expect_the_gated_fir<Bf16>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    OddSizes, HyenaFirKernelTest,
    ::testing::Values(HyenaShape{1, 1, 1}, HyenaShape{2, 1, 5, 7, 1, true, true},
                      HyenaShape{2, 1, 72, 128, 8, true, true}, HyenaShape{1, 1, 70, 9},
                      HyenaShape{1, 2, 3, 8, 1, true}, HyenaShape{1, 3, 70, 7, 2, true, false, 5},
                      HyenaShape{2, 31, 8, 7, 8, true, true}, HyenaShape{1, 32, 72, 7, 8, false, true, 8},
                      HyenaShape{2, 33, 64, 7, 16, true}, HyenaShape{1, 300, 9, 7, 1, true, true},
                      HyenaShape{1, 70, 20, 128, 5, true, true}, HyenaShape{1, 40, 6, 9, 1, true, true},
                      HyenaShape{1, 1050, 2, 128, 2, true, true},
                      // On tensor cores in bf16.
                      HyenaShape{2, 1, 16, 128, 16, true, true}, HyenaShape{1, 2, 80, 128, 16, false, true},
                      HyenaShape{2, 77, 80, 128, 16, true, true, 8},
                      HyenaShape{1, 50, 96, 129, 32, true, true, 4},
                      HyenaShape{1, 50, 16, 16, 16, true, false}, HyenaShape{1, 130, 64, 40, 64, true, true},
                      HyenaShape{1, 1061, 16, 128, 16, true, true}));

using HyenaBatchKernelTest = KernelTest;
TEST_F(HyenaBatchKernelTest, MayBeLargerThanAGridIsHigh) {
  expect_the_gated_fir<Bf16>({65537, 1, 1, 2, 1, true});
}

class HyenaScanKernelTest : public KernelTestWithParam<HyenaShape> {};

template <class T>
void expect_the_gated_scan(const HyenaShape& s) {
  Front<T> front(s);
  const int64_t modes = s.taps, all = modes * s.channels, stretches = kernels::cuda::scan_stretches(s.length);
  Buffer<float> log_poles(all), residues(all), states(s.batch * stretches * all), final(s.batch * all),
      initial(s.batch * all);
  Buffer<T> skip(s.channels), y(s.batch * s.length * s.channels);
  log_poles.randomise(4, -2, -1e-3);
  residues.randomise(6);
  initial.randomise(7);
  skip.randomise(8);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t i = 0; i < all; ++i) states[b * stretches * all + i] = s.state ? initial[b * all + i] : 0.f;
  kernels::cuda::hyena_scan<T>(front.input(), {log_poles, residues, states, final, modes},
                               s.skip ? skip.get() : nullptr, y, nullptr);
  finish_kernels();
  front.expect_last();
  const double steps = static_cast<double>(3 * s.length + modes);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t c = 0; c < s.channels; ++c) {
      std::vector<Sized> sum(static_cast<size_t>(s.length));
      for (int64_t n = 0; n < modes; ++n) {
        const int64_t mode = n * s.channels + c;
        const double a = std::exp(value(log_poles[c * modes + n])), r = value(residues[c * modes + n]);
        Sized state{value(states[b * stretches * all + mode]), 0};
        state.size = std::abs(state.value);
        for (int64_t t = 0; t < s.length; ++t) {
          const Sized p = front.p(b, t, c);
          state = {a * state.value + p.value, a * state.size + p.size};
          sum[static_cast<size_t>(t)].add(r * state.value, std::abs(r) * state.size);
        }
        expect_within(value(final[b * all + mode]), state.value, bound<T>(state, 3, steps), "final");
      }
      for (int64_t t = 0; t < s.length; ++t) {
        const Sized p = front.p(b, t, c);
        const double d = s.skip ? value(skip[c]) : 0;
        sum[static_cast<size_t>(t)].add(d * p.value, std::abs(d) * p.size);
        const Sized exact = front.x2(b, t, c) * sum[static_cast<size_t>(t)];
        const int64_t i = (b * s.length + t) * s.channels + c;
        expect_within(value(y[i]), exact.value, bound<T>(exact, 6, steps), "y[" + std::to_string(i) + "]");
      }
    }
  }
}

TEST_P(HyenaScanKernelTest, EqualsTheGatedScanInFp32) { expect_the_gated_scan<float>(GetParam()); }
TEST_P(HyenaScanKernelTest, EqualsTheGatedScanInBf16) { expect_the_gated_scan<Bf16>(GetParam()); }

// taps stands for the number of modes.
INSTANTIATE_TEST_SUITE_P(OddSizes, HyenaScanKernelTest,
                         ::testing::Values(HyenaShape{1, 1, 1}, HyenaShape{2, 1, 5, 16, 1, true, true},
                                           HyenaShape{2, 33, 70, 3, 1, true, true, 3},
                                           HyenaShape{1, 256, 8, 16, 1, true, true},
                                           HyenaShape{2, 600, 8, 16, 1, true, true, 8},
                                           HyenaShape{1, 257, 3, 4}));

class HyenaGradientKernelTest : public KernelTestWithParam<HyenaShape> {};

template <class T>
void expect_the_parts_of_the_gradient(const HyenaShape& s) {
  Front<T> front(s);
  const int64_t dense = s.length * s.channels, p_batch = dense + s.gap, dmixed_batch = 3 * dense + s.gap;
  Buffer<T> dy(s.batch * dense), filtered(dy.size()), dp(s.batch * p_batch), p(s.batch * p_batch),
      dinner(s.batch * p_batch), dmixed(s.batch * dmixed_batch);
  dy.randomise(4);
  filtered.randomise(5);
  dp.randomise(6);
  kernels::cuda::hyena_split<T>(front.input(false), dy, p, p_batch, dinner, p_batch, nullptr);
  kernels::cuda::hyena_gradient<T>(front.input(false), dy, filtered, dp, p_batch, dmixed, dmixed_batch,
                                   nullptr);
  finish_kernels();
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t i = 0; i < dense; ++i) {
      const int64_t t = i / s.channels, c = i % s.channels, at = b * p_batch + i,
                    gradient = b * dmixed_batch + 3 * i;
      const auto sized = [](double x) { return Sized{x, std::abs(x)}; };
      const auto expect = [&](T got, const Sized& exact, const char* what) {
        expect_within(value(got), exact.value, bound<T>(exact, 4, 0), what + std::to_string(at));
      };
      const Sized g = sized(value(dy[b * dense + i])), d = sized(value(dp[at]));
      expect(p[at], front.p(b, t, c), "p ");
      expect(dinner[at], front.x2(b, t, c) * g, "dinner ");
      expect(dmixed[gradient], g * sized(value(filtered[b * dense + i])), "dx2 ");
      expect(dmixed[gradient + 1], d * front.v(b, t, c), "dx1 ");
      expect(dmixed[gradient + 2], d * front.x1(b, t, c), "dv ");
    }
  }
}

TEST_P(HyenaGradientKernelTest, PartsEqualTheirFormulasInFp32) {
  expect_the_parts_of_the_gradient<float>(GetParam());
}
TEST_P(HyenaGradientKernelTest, PartsEqualTheirFormulasInBf16) {
  expect_the_parts_of_the_gradient<Bf16>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(OddSizes, HyenaGradientKernelTest,
                         ::testing::Values(HyenaShape{1, 1, 1}, HyenaShape{2, 33, 70, 1, 1, true, false, 3},
                                           HyenaShape{2, 32, 72, 1, 1, true, false, 8},
                                           HyenaShape{1, 300, 8, 1, 1}));

}  // namespace
}  // namespace focus::testing
