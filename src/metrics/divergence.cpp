#include "focus/metrics/divergence.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "focus/core/error.h"

namespace focus::metrics {
namespace {

// Wider vectors where the processor has them; without fused multiply-add, which the build switches off for
// this file, so every processor gives the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOCUS_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOCUS_VECTOR_CLONES
#endif

// Eight lanes, whatever the processor's registers hold: sums are made in the same order on every machine.
constexpr int64_t kLanes = 8;
typedef double Lanes __attribute__((vector_size(8 * kLanes)));
typedef int64_t Bits __attribute__((vector_size(8 * kLanes)));
#define FOCUS_INLINE __attribute__((always_inline)) inline

/// The first `count` lanes; the others are `rest`.
FOCUS_INLINE void load(const double* from, int64_t count, Lanes& out, double rest = 0) {
  if (count < kLanes) out = Lanes{} + rest;
  __builtin_memcpy(&out, from, sizeof(double) * static_cast<std::size_t>(count < kLanes ? count : kLanes));
}
FOCUS_INLINE void store(const Lanes& values, int64_t count, double* to) {
  __builtin_memcpy(to, &values, sizeof(double) * static_cast<std::size_t>(count < kLanes ? count : kLanes));
}
/// run(first, count) for every group of lanes; the last may be smaller.
template <class F>
FOCUS_INLINE void by_lanes(int64_t n, const F& run) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) run(i, kLanes);
  if (i < n) run(i, n - i);
}
FOCUS_INLINE double sum(const Lanes& lanes) {
  double total = 0;
  for (int64_t j = 0; j < kLanes; ++j) total += lanes[j];
  return total;
}
/// Of values that by_lanes() went over: whole groups are in `lanes`, the rest is added one by one.
FOCUS_INLINE double sum(const Lanes& lanes, const double* values, int64_t n) {
  double total = sum(lanes);
  for (int64_t i = n / kLanes * kLanes; i < n; ++i) total += values[i];
  return total;
}

// exp(x) for x <= 0, to 1e-15 relative. Below -60 the result is exp(-60): far under the clip, so no measure
// sees the difference.
FOCUS_INLINE void exp_nonpositive(Lanes& x) {
  constexpr double log2_e = 1.4426950408889634, ln2_high = 0.693147180369123816490,
                   ln2_low = 1.90821492927058770002e-10;
  constexpr double round_shift = 0x1.8p52;
  const Lanes lowest = Lanes{} - 60.0;
  x = x < lowest ? lowest : x;
  const Lanes shifted = x * log2_e + round_shift;  // the integer part ends up in the low bits
  const Lanes n = shifted - round_shift;
  const Lanes r = (x - n * ln2_high) - n * ln2_low;  // |r| <= ln 2 / 2
  Lanes series = Lanes{} + 1.0 / 6227020800.0;
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
  const Bits power = (reinterpret_cast<Bits>(shifted) << 52) + (int64_t{1023} << 52);
  x = series * reinterpret_cast<Lanes>(power);
}

// (1-u) log(1-u) + (1+u) log(1+u) over u^2: with p = m(1-u), q = m(1+u) the Jensen-Shannon divergence is 1/2
// sum m u^2 g(u^2), a sum of positive terms. The series serves |u| <= 1/4 (relative error below 1e-12).
constexpr double kSeriesLimit = 1.0 / 16.0;  // of u^2
FOCUS_INLINE void js_series(const Lanes& u2, Lanes& g) {
  g = Lanes{} + 1.0 / 153.0;
  g = g * u2 + 1.0 / 120.0;
  g = g * u2 + 1.0 / 91.0;
  g = g * u2 + 1.0 / 66.0;
  g = g * u2 + 1.0 / 45.0;
  g = g * u2 + 1.0 / 28.0;
  g = g * u2 + 1.0 / 15.0;
  g = g * u2 + 1.0 / 6.0;
  g = g * u2 + 1.0;
}
double js_term(double p, double q, double log_p, double log_q) {
  const double log_m = std::log(0.5 * (p + q));
  return p * (log_p - log_m) + q * (log_q - log_m);
}

typedef float Floats __attribute__((vector_size(8 * kLanes)));
typedef int32_t Found __attribute__((vector_size(8 * kLanes)));
constexpr int64_t kFloats = 2 * kLanes;

struct Highest {
  float value;
  bool sound;  // no NaN among them
};
FOCUS_VECTOR_CLONES Highest highest(const float* logits, int64_t n) {
  Floats top = Floats{} - std::numeric_limits<float>::infinity();
  Found unsound = {};
  const auto take = [&](const Floats& x) __attribute__((always_inline)) {
    top = x > top ? x : top;
    unsound |= x != x;
  };
  int64_t i = 0;
  Floats x;
  for (; i + kFloats <= n; i += kFloats) {
    __builtin_memcpy(&x, logits + i, sizeof x);
    take(x);
  }
  x = top;
  for (int64_t j = 0; i + j < n; ++j) x[j] = logits[i + j];
  take(x);
  Highest out{top[0], unsound[0] == 0};
  for (int64_t lane = 1; lane < kFloats; ++lane) {
    out.value = std::max(out.value, top[lane]);
    out.sound = out.sound && unsound[lane] == 0;
  }
  return out;
}

FOCUS_VECTOR_CLONES void subtract(const float* from, double what, int64_t n, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<double>(from[i]) - what;
}

}  // namespace

void Distribution::assign(std::span<const float> logits) {
  const auto n = static_cast<int64_t>(logits.size());
  const auto [top, sound] = highest(logits.data(), n);
  if (!sound || !std::isfinite(top))
    fail<CheckFailed>("a row of ", n, " logits holds ", sound ? "no finite maximum" : "NaN",
                      ": the model's output is not usable");
  log_p_.resize(logits.size());
  subtract(logits.data(), static_cast<double>(top), n, log_p_.data());
  log_sum_exp_ = static_cast<double>(top);
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
  for (top1_ = 0; log_p[top1_] < 0;) ++top1_;
  Lanes sums = {};
  // Of groups of lanes; a smaller one at the end is summed on its own.
  const auto add = [&](const Lanes& values, int64_t count) __attribute__((always_inline)) {
    if (count == kLanes) sums += values;
  };
  by_lanes(n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    Lanes x;
    load(log_p + i, count, x);
    exp_nonpositive(x);
    store(x, count, p + i);
    add(x, count);
  });
  const double total = sum(sums, p, n), log_total = std::log(total), scale = 1.0 / total;
  log_sum_exp_ += log_total;
  sums = Lanes{};
  by_lanes(n, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    const Lanes clip = Lanes{} + kClip;
    Lanes x;
    load(p + i, count, x);
    x *= scale;
    x = x > clip ? x : clip;
    store(x, count, p + i);
    add(x, count);
  });
  const double clipped_total = sum(sums, p, n), clipped_scale = 1.0 / clipped_total,
               shift = log_total + std::log(clipped_total);
  const double log_floor = std::log(kClip) - std::log(clipped_total);
  for (int64_t i = 0; i < n; ++i) {
    p[i] *= clipped_scale;
    const double x = log_p[i] - shift;
    log_p[i] = x > log_floor ? x : log_floor;
  }
  for (int64_t i = 0; i < n; ++i) sqrt_p[i] = std::sqrt(p[i]);
}

FOCUS_VECTOR_CLONES Divergences compare(const Distribution& a, const Distribution& b) {
  FOCUS_CHECK(a.size() == b.size() && a.size() > 0, "distributions of ", a.size(), " and ", b.size(),
              " entries");
  const double *p = a.probabilities().data(), *q = b.probabilities().data(),
               *log_p = a.log_probabilities().data(), *log_q = b.log_probabilities().data(),
               *root_p = a.square_roots().data(), *root_q = b.square_roots().data();
  Lanes l1 = {}, l2 = {}, hellinger = {}, js = {}, kl = {};
  by_lanes(a.size(), [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    Lanes x, y, lx, ly, rx, ry;
    load(p + i, count, x, 1);  // lanes beyond the end: equal, so that they add nothing
    load(q + i, count, y, 1);
    load(log_p + i, count, lx);
    load(log_q + i, count, ly);
    load(root_p + i, count, rx);
    load(root_q + i, count, ry);
    const Lanes difference = x - y, roots = rx - ry, both = x + y, u = difference / both, u2 = u * u;
    l1 += difference < 0.0 ? -difference : difference;
    l2 += difference * difference;
    hellinger += roots * roots;
    kl += x * (lx - ly);
    Lanes g;
    js_series(u2, g);
    Lanes terms = 0.5 * both * u2 * g;
    const Bits beyond = u2 > kSeriesLimit;
    int64_t any = 0;
    for (int64_t j = 0; j < kLanes; ++j) any |= beyond[j];
    if (any != 0) {
      for (int64_t j = 0; j < count; ++j) {
        if (beyond[j] != 0) terms[j] = js_term(x[j], y[j], lx[j], ly[j]);
      }
    }
    js += terms;
  });
  Divergences result;
  result.l1 = sum(l1);
  result.l2 = std::sqrt(sum(l2));
  result.hellinger = std::sqrt(0.5 * sum(hellinger));
  result.js = 0.5 * sum(js);
  result.kl = std::max(0.0, sum(kl));
  return result;
}

}  // namespace focus::metrics
