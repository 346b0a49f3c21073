#include "focus/metrics/divergence.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "focus/core/error.h"

namespace focus::metrics {
namespace {

// Wider vectors where the processor has them; without fused multiply-add, so every processor gives the same
// bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOCUS_VECTOR_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define FOCUS_VECTOR_CLONES
#endif

constexpr int64_t kLanes = 8;

// exp(x) for x <= 0, to 1e-15 relative, in plain arithmetic that the compiler turns into vector code. Below
// -60 the result is exp(-60): far under the clip, so no measure sees the difference.
__attribute__((always_inline)) inline double exp_nonpositive(double x) {
  constexpr double log2_e = 1.4426950408889634, ln2_high = 0.693147180369123816490,
                   ln2_low = 1.90821492927058770002e-10;
  constexpr double round_shift = 0x1.8p52;
  x = x < -60.0 ? -60.0 : x;
  const double shifted = x * log2_e + round_shift;  // the integer part ends up in the low bits
  const double n = shifted - round_shift;
  const double r = (x - n * ln2_high) - n * ln2_low;  // |r| <= ln 2 / 2
  double series = 1.0 / 6227020800.0;
  series = series * r + 1.0 / 479001600.0;
  series = series * r + 1.0 / 39916800.0;
  series = series * r + 1.0 / 3628800.0;
  series = series * r + 1.0 / 362880.0;
  series = series * r + 1.0 / 40320.0;
  series = series * r + 1.0 / 5040.0;
  series = series * r + 1.0 / 720.0;
  series = series * r + 1.0 / 120.0;
  series = series * r + 1.0 / 24.0;
  series = series * r + 1.0 / 6.0;
  series = series * r + 0.5;
  series = series * r + 1.0;
  series = series * r + 1.0;
  const int64_t power = (std::bit_cast<int64_t>(shifted) << 52) + (int64_t{1023} << 52);
  return series * std::bit_cast<double>(power);
}

// Sums in eight lanes: vectorisable without reordering a sum behind the program's back, and the same on every
// machine.
__attribute__((always_inline)) inline double sum(const double* values, int64_t n) {
  std::array<double, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[static_cast<std::size_t>(j)] += values[i + j];
  }
  double total = 0;
  for (const double lane : lanes) total += lane;
  for (; i < n; ++i) total += values[i];
  return total;
}

// (1-u) log(1-u) + (1+u) log(1+u) over u^2: with p = m(1-u), q = m(1+u) the Jensen-Shannon divergence is 1/2
// sum m u^2 g(u^2), a sum of positive terms. The series serves |u| <= 1/4 (relative error below 1e-12).
constexpr double kSeriesLimit = 1.0 / 16.0;  // of u^2
__attribute__((always_inline)) inline double js_series(double u2) {
  double g = 1.0 / 153.0;
  g = g * u2 + 1.0 / 120.0;
  g = g * u2 + 1.0 / 91.0;
  g = g * u2 + 1.0 / 66.0;
  g = g * u2 + 1.0 / 45.0;
  g = g * u2 + 1.0 / 28.0;
  g = g * u2 + 1.0 / 15.0;
  g = g * u2 + 1.0 / 6.0;
  return g * u2 + 1.0;
}
double js_term(double p, double q) {
  const double m = 0.5 * (p + q);
  return p * std::log(p / m) + q * std::log(q / m);
}

double highest(std::span<const float> logits) {
  float top = -std::numeric_limits<float>::infinity();
  bool sound = true;
  for (const float x : logits) {
    top = x > top ? x : top;
    sound = sound && !std::isnan(x);
  }
  if (!sound || !std::isfinite(top))
    fail<CheckFailed>("a row of ", logits.size(), " logits holds ", sound ? "no finite maximum" : "NaN",
                      ": the model's output is not usable");
  return static_cast<double>(top);
}

}  // namespace

void Distribution::assign(std::span<const float> logits) {
  const double top = highest(logits);
  log_p_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) log_p_[i] = static_cast<double>(logits[i]) - top;
  log_sum_exp_ = top;
  normalise();
}

void Distribution::assign(std::span<const float> logits, std::span<const int32_t> subset) {
  log_p_.resize(subset.size());
  double top = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < subset.size(); ++i) {
    FOCUS_CHECK(subset[i] >= 0 && static_cast<std::size_t>(subset[i]) < logits.size(), "subset entry ",
                subset[i], " of ", logits.size());
    const double x = static_cast<double>(logits[static_cast<std::size_t>(subset[i])]);
    if (std::isnan(x)) fail<CheckFailed>("logit ", subset[i], " is NaN: the model's output is not usable");
    top = std::max(top, x);
    log_p_[i] = x;
  }
  if (!std::isfinite(top))
    fail<CheckFailed>("a subset of ", subset.size(),
                      " logits holds no finite maximum: the model's output is not usable");
  for (double& x : log_p_) x -= top;
  log_sum_exp_ = top;
  normalise();
}

// log_p_ holds logits less their maximum, log_sum_exp_ that maximum.
FOCUS_VECTOR_CLONES void Distribution::normalise() {
  const auto n = static_cast<int64_t>(log_p_.size());
  p_.resize(log_p_.size());
  sqrt_p_.resize(log_p_.size());
  double* const p = p_.data();
  double* const log_p = log_p_.data();
  double* const sqrt_p = sqrt_p_.data();
  top1_ = std::max_element(log_p_.begin(), log_p_.end()) - log_p_.begin();
  for (int64_t i = 0; i < n; ++i) p[i] = exp_nonpositive(log_p[i]);
  const double total = sum(p, n), log_total = std::log(total), scale = 1.0 / total;
  log_sum_exp_ += log_total;
  for (int64_t i = 0; i < n; ++i) {
    const double scaled = p[i] * scale;
    p[i] = scaled > kClip ? scaled : kClip;
  }
  const double clipped_total = sum(p, n), clipped_scale = 1.0 / clipped_total,
               shift = log_total + std::log(clipped_total);
  const double log_floor = std::log(kClip) - std::log(clipped_total);
  for (int64_t i = 0; i < n; ++i) {
    p[i] *= clipped_scale;
    const double x = log_p[i] - shift;
    log_p[i] = x > log_floor ? x : log_floor;
    sqrt_p[i] = std::sqrt(p[i]);
  }
}

FOCUS_VECTOR_CLONES Divergences compare(const Distribution& a, const Distribution& b) {
  FOCUS_CHECK(a.size() == b.size() && a.size() > 0, "distributions of ", a.size(), " and ", b.size(),
              " entries");
  const int64_t n = a.size();
  const double *p = a.probabilities().data(), *q = b.probabilities().data(),
               *log_p = a.log_probabilities().data(), *log_q = b.log_probabilities().data(),
               *root_p = a.square_roots().data(), *root_q = b.square_roots().data();
  using Lanes = std::array<double, kLanes>;
  Lanes l1{}, l2{}, hellinger{}, js{}, kl{};
  const auto block = [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    double largest = 0;
    for (int64_t j = 0; j < count; ++j) {
      const auto lane = static_cast<std::size_t>(j);
      const double x = p[i + j], y = q[i + j], difference = x - y, roots = root_p[i + j] - root_q[i + j];
      l1[lane] += std::fabs(difference);
      l2[lane] += difference * difference;
      hellinger[lane] += roots * roots;
      kl[lane] += x * (log_p[i + j] - log_q[i + j]);
      const double u = difference / (x + y), u2 = u * u;
      largest = u2 > largest ? u2 : largest;
    }
    if (largest <= kSeriesLimit) {
      for (int64_t j = 0; j < count; ++j) {
        const double x = p[i + j], y = q[i + j], u = (x - y) / (x + y), u2 = u * u;
        js[static_cast<std::size_t>(j)] += 0.5 * (x + y) * u2 * js_series(u2);
      }
    } else {
      for (int64_t j = 0; j < count; ++j) {
        const double x = p[i + j], y = q[i + j], u = (x - y) / (x + y), u2 = u * u;
        js[static_cast<std::size_t>(j)] +=
            u2 <= kSeriesLimit ? 0.5 * (x + y) * u2 * js_series(u2) : js_term(x, y);
      }
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) block(i, kLanes);
  if (i < n) block(i, n - i);
  const auto total = [](const Lanes& lanes) {
    double value = 0;
    for (const double lane : lanes) value += lane;
    return value;
  };
  Divergences result;
  result.l1 = total(l1);
  result.l2 = std::sqrt(total(l2));
  result.hellinger = std::sqrt(0.5 * total(hellinger));
  result.js = 0.5 * total(js);
  result.kl = std::max(0.0, total(kl));
  return result;
}

}  // namespace focus::metrics
