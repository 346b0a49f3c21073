#include "focus/kernels/cuda/modal_scan.h"

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

struct ScanShape {
  int64_t batch, length, channels, modes;
  bool skip = false;
  int64_t gap = 0;  // values between the batches of p
};
void PrintTo(const ScanShape& s, std::ostream* out) {
  *out << "B" << s.batch << " L" << s.length << " C" << s.channels << " N" << s.modes
       << (s.skip ? " skip" : "") << " gap " << s.gap;
}

// Poles from fast ones to some that decay over a million rows.
struct Filters {
  Filters(int64_t modes, int64_t channels) : log_poles(modes * channels), residues(modes * channels) {
    residues.randomise(11);
    std::mt19937 generator(12);
    std::uniform_real_distribution<double> draw(-6, 0.5);
    for (int64_t i = 0; i < log_poles.size(); ++i)
      log_poles[i] = static_cast<float>(-std::pow(10., draw(generator)));
  }
  Buffer<float> log_poles, residues;
};

class ScanKernelTest : public KernelTestWithParam<ScanShape> {};

template <class T>
void expect_the_recurrence(const ScanShape& s) {
  const int64_t stretches = kernels::cuda::scan_stretches(s.length), all = s.modes * s.channels,
                p_batch = s.length * s.channels + s.gap;
  const Filters filters(s.modes, s.channels);
  Buffer<T> p(s.batch * p_batch), skip(s.channels), y(s.batch * s.length * s.channels), dy(y.size()),
      dp(y.size());
  Buffer<float> states(s.batch * stretches * all), final(s.batch * all), dstates(states.size()),
      dinitial(s.batch * all), dpoles(states.size()), dresidues(states.size());
  p.randomise(1);
  skip.randomise(2);
  dy.randomise(3);
  Buffer<float> initial(s.batch * all), dfinal(s.batch * all);
  initial.randomise(4);
  dfinal.randomise(5);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t i = 0; i < all; ++i) {
      states[b * stretches * all + i] = initial[b * all + i];
      dstates[((b + 1) * stretches - 1) * all + i] = dfinal[b * all + i];
    }
  }
  T* const skipped = s.skip ? skip.get() : nullptr;
  kernels::cuda::modal_scan<T>({p,
                                p_batch,
                                {filters.log_poles, filters.residues, states, final, s.modes},
                                skipped,
                                y,
                                s.batch,
                                s.length,
                                s.channels},
                               nullptr);
  // Both forms: with the gradients of poles and residues, and without.
  if (s.gap == 0) {
    kernels::cuda::ScanGradient<T> gradient{
        p,        dy,     filters.log_poles, filters.residues, states,   skipped, dstates,   dp,
        dinitial, dpoles, dresidues,         s.batch,          s.length, s.modes, s.channels};
    kernels::cuda::modal_scan_gradient<T>(gradient, nullptr);
    finish_kernels();
    Buffer<T> dp_alone(dp.size());
    Buffer<float> dinitial_alone(dinitial.size());
    gradient.p = nullptr, gradient.dp = dp_alone, gradient.dinitial = dinitial_alone;
    gradient.dpoles = gradient.dresidues = nullptr, gradient.states = nullptr;
    kernels::cuda::modal_scan_gradient<T>(gradient, nullptr);
    finish_kernels();
    for (int64_t i = 0; i < dp.size(); ++i) ASSERT_EQ(dp[i], dp_alone[i]) << i;
    for (int64_t i = 0; i < dinitial.size(); ++i) ASSERT_EQ(dinitial[i], dinitial_alone[i]) << i;
  }
  finish_kernels();

  // Each row rounds a state three times; what is carried decays.
  const double steps = static_cast<double>(3 * s.length + s.modes + 8) * kRounding<float>;
  std::vector<double> dpole_sums(static_cast<size_t>(all)), dresidue_sums(dpole_sums),
      dpole_sizes(dpole_sums), dresidue_sizes(dpole_sums);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t c = 0; c < s.channels; ++c) {
      const auto row = [&](int64_t t) { return t * s.channels + c; };
      const double skip_here = s.skip ? value(skip[c]) : 0;
      std::vector<double> y_sum(static_cast<size_t>(s.length)), y_size(y_sum), dp_sum(y_sum), dp_size(y_sum);
      for (int64_t n = 0; n < s.modes; ++n) {
        const int64_t mode = n * s.channels + c;
        const double a = std::exp(value(filters.log_poles[c * s.modes + n])),
                     r = value(filters.residues[c * s.modes + n]);
        std::vector<double> state{value(initial[b * all + mode])}, size{std::abs(state[0])};
        for (int64_t t = 0; t < s.length; ++t) {
          const double in = value(p[b * p_batch + row(t)]);
          state.push_back(a * state.back() + in);
          size.push_back(a * size.back() + std::abs(in));
          y_sum[static_cast<size_t>(t)] += r * state.back();
          y_size[static_cast<size_t>(t)] += std::abs(r) * size.back();
        }
        expect_within(value(final[b * all + mode]), state.back(), steps * size.back(),
                      "final[" + std::to_string(b * all + mode) + "]");
        double adjoint = value(dfinal[b * all + mode]), adjoint_size = std::abs(adjoint);
        for (int64_t t = s.length - 1; t >= 0; --t) {
          const double g = value(dy[b * s.length * s.channels + row(t)]);
          const auto at = static_cast<size_t>(t), m = static_cast<size_t>(mode);
          adjoint += r * g, adjoint_size += std::abs(r * g);
          dp_sum[at] += adjoint, dp_size[at] += adjoint_size;
          dresidue_sums[m] += g * state[at + 1], dresidue_sizes[m] += std::abs(g) * size[at + 1];
          dpole_sums[m] += adjoint * state[at], dpole_sizes[m] += adjoint_size * size[at];
          adjoint *= a, adjoint_size *= a;
        }
        if (s.gap == 0)
          expect_within(value(dinitial[b * all + mode]), adjoint, steps * adjoint_size,
                        "dinitial[" + std::to_string(b * all + mode) + "]");
      }
      for (int64_t t = 0; t < s.length; ++t) {
        const int64_t i = b * s.length * s.channels + row(t);
        const auto at = static_cast<size_t>(t);
        const double skipped_p = skip_here * value(p[b * p_batch + row(t)]),
                     skipped_dy = skip_here * value(dy[i]);
        expect_within(
            value(y[i]), y_sum[at] + skipped_p,
            steps * (y_size[at] + std::abs(skipped_p)) + kRounding<T> * std::abs(y_sum[at] + skipped_p),
            "y[" + std::to_string(i) + "]");
        if (s.gap == 0)
          expect_within(
              value(dp[i]), dp_sum[at] + skipped_dy,
              steps * (dp_size[at] + std::abs(skipped_dy)) + kRounding<T> * std::abs(dp_sum[at] + skipped_dy),
              "dp[" + std::to_string(i) + "]");
      }
    }
  }
  for (int64_t i = 0; i < all && s.gap == 0; ++i) {
    double dpole = 0, dresidue = 0;
    for (int64_t part = 0; part < s.batch * stretches; ++part)
      dpole += value(dpoles[part * all + i]), dresidue += value(dresidues[part * all + i]);
    const auto at = static_cast<size_t>(i);
    expect_within(dpole, dpole_sums[at], 3 * steps * dpole_sizes[at], "dpoles[" + std::to_string(i) + "]");
    expect_within(dresidue, dresidue_sums[at], 2 * steps * dresidue_sizes[at],
                  "dresidues[" + std::to_string(i) + "]");
  }
}

TEST_P(ScanKernelTest, EqualsTheRecurrenceAndItsGradientInFp32) { expect_the_recurrence<float>(GetParam()); }
TEST_P(ScanKernelTest, EqualsTheRecurrenceAndItsGradientInBf16) { expect_the_recurrence<Bf16>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(OddSizes, ScanKernelTest,
                         ::testing::Values(ScanShape{1, 1, 1, 1}, ScanShape{2, 15, 3, 5, true},
                                           ScanShape{2, 16, 33, 16}, ScanShape{1, 17, 70, 4, true},
                                           ScanShape{2, 33, 64, 16, true}, ScanShape{1, 256, 8, 16},
                                           ScanShape{2, 257, 8, 16, true}, ScanShape{1, 600, 5, 3, true},
                                           ScanShape{2, 40, 8, 16, true, 24}, ScanShape{1, 2500, 1, 16}));

using SlowPoleKernelTest = KernelTest;

// A state that hardly decays must not drift: what fp32 alone loses of the pole in each row would add up.
TEST_F(SlowPoleKernelTest, IsCarriedOverManyStretches) {
  constexpr int64_t length = 100000;
  const int64_t stretches = kernels::cuda::scan_stretches(length);
  Buffer<float> log_poles(1), residues(1), states(stretches), final(1), p(length), y(length);
  log_poles[0] = -1e-6f;
  const double pole = std::exp(value(log_poles[0]));
  residues[0] = 1;
  states[0] = 1;
  p.fill(0);
  kernels::cuda::modal_scan<float>(
      {p, length, {log_poles, residues, states, final, 1}, nullptr, y, 1, length, 1}, nullptr);
  finish_kernels();
  ASSERT_GT(std::abs(1 - std::pow(static_cast<double>(static_cast<float>(pole)) / pole, length)), 1e-3);
  expect_within(value(final[0]), std::pow(pole, length), 2e-5, "final");
}

TEST_F(SlowPoleKernelTest, KeepsItsRestFromRowToRow) {
  constexpr int64_t steps = 20000;
  Buffer<float> log_poles(1), residues(1), even(1), odd(1), p(steps), y(steps);
  log_poles[0] = -1e-6f;
  residues[0] = 1;
  even[0] = 1;
  p.randomise(1);
  double exact = 1, largest = 1;
  const double pole = std::exp(value(log_poles[0]));
  for (int64_t t = 0; t < steps; ++t) {
    float *before = t % 2 == 0 ? even : odd, *after = t % 2 == 0 ? odd : even;
    kernels::cuda::modal_scan<float>(
        {p + t, 1, {log_poles, residues, before, after, 1}, nullptr, y + t, 1, 1, 1}, nullptr);
    exact = pole * exact + value(p[t]);
    largest = std::max(largest, std::abs(exact));
  }
  finish_kernels();
  expect_within(value(even[0]), exact, 4 * std::sqrt(steps) * kRounding<float> * largest, "state");
}

}  // namespace
}  // namespace focus::testing
