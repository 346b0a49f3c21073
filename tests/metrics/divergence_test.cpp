#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>

#include "focus/core/error.h"
#include "focus/metrics/divergence.h"

namespace focus::metrics {
namespace {

constexpr std::array<int32_t, 4> kBases = {65, 67, 71, 84};

std::vector<long double> reference_probabilities(const std::vector<float>& logits) {
  long double top = -std::numeric_limits<long double>::infinity(), total = 0;
  for (const float x : logits) top = std::max(top, static_cast<long double>(x));
  std::vector<long double> p;
  for (const float x : logits) total += p.emplace_back(std::exp(static_cast<long double>(x) - top));
  for (long double& x : p) x = std::max(x / total, static_cast<long double>(kClip));
  total = 0;
  for (const long double x : p) total += x;
  for (long double& x : p) x /= total;
  return p;
}

Divergences reference(const std::vector<float>& a, const std::vector<float>& b) {
  const std::vector<long double> p = reference_probabilities(a), q = reference_probabilities(b);
  long double l1 = 0, l2 = 0, h = 0, js = 0, kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const long double m = (p[i] + q[i]) / 2;
    l1 += std::fabs(p[i] - q[i]);
    l2 += (p[i] - q[i]) * (p[i] - q[i]);
    h += (std::sqrt(p[i]) - std::sqrt(q[i])) * (std::sqrt(p[i]) - std::sqrt(q[i]));
    js += (p[i] * std::log(p[i] / m) + q[i] * std::log(q[i] / m)) / 2;
    kl += p[i] * std::log(p[i] / q[i]);
  }
  return {static_cast<double>(l1), static_cast<double>(std::sqrt(l2)), static_cast<double>(std::sqrt(h / 2)),
          static_cast<double>(js), static_cast<double>(kl)};
}

void expect_near(const Divergences& got, const Divergences& expected, double relative, double absolute) {
  const auto tolerance = [&](double value) { return relative * std::fabs(value) + absolute; };
  EXPECT_NEAR(got.l1, expected.l1, tolerance(expected.l1));
  EXPECT_NEAR(got.l2, expected.l2, tolerance(expected.l2));
  EXPECT_NEAR(got.hellinger, expected.hellinger, tolerance(expected.hellinger));
  EXPECT_NEAR(got.js, expected.js, tolerance(expected.js));
  EXPECT_NEAR(got.kl, expected.kl, tolerance(expected.kl));
}

Divergences compare_rows(const std::vector<float>& a, const std::vector<float>& b) {
  Distribution p, q;
  p.assign(a);
  q.assign(b);
  return compare(p, q);
}

std::vector<float> row(std::mt19937& generator, std::size_t n, float spread) {
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(generator);
  return logits;
}

TEST(Divergence, EqualsHandValues) {
  // p = (1/2, 1/4, 1/8, 1/8), q uniform.
  const std::vector<float> a = {std::log(4.0F), std::log(2.0F), 0, 0}, b = {3, 3, 3, 3};
  const Divergences d = compare_rows(a, b);
  EXPECT_NEAR(d.l1, 0.5, 1e-7);
  EXPECT_NEAR(d.l2, std::sqrt(0.0625 + 0.015625 * 2), 1e-7);
  EXPECT_NEAR(d.hellinger, std::sqrt(1 - (std::sqrt(0.125) + 0.25 + 2 * std::sqrt(1.0 / 32))), 1e-7);
  EXPECT_NEAR(d.kl, 0.25 * std::log(2.0), 1e-7);  // log 4 - 1.75 log 2
  EXPECT_NEAR(compare_rows(b, a).kl, 0.25 * (std::log(0.5) + 0 + 2 * std::log(2.0)), 1e-7);
  const double m[] = {0.375, 0.25, 0.1875};
  const double js = 0.5 * (0.5 * std::log(0.5 / m[0]) + 0.25 * std::log(0.125 / m[2])) +
                    0.5 * (0.25 * std::log(0.25 / m[0]) + 0.5 * std::log(0.25 / m[2]));
  EXPECT_NEAR(d.js, js, 1e-7);
}

TEST(Divergence, EqualsTheScalarReference) {
  std::mt19937 generator(1);
  for (const std::size_t n : {1U, 2U, 4U, 7U, 8U, 9U, 31U, 512U, 513U}) {
    for (const float spread : {0.1F, 1.0F, 6.0F, 30.0F}) {
      for (int repeat = 0; repeat < 20; ++repeat) {
        const std::vector<float> a = row(generator, n, spread), b = row(generator, n, spread);
        expect_near(compare_rows(a, b), reference(a, b), 1e-11, 1e-14);
      }
    }
  }
}

TEST(Divergence, IsAccurateForNearlyEqualDistributions) {
  std::mt19937 generator(2);
  for (const float step : {1e-1F, 1e-2F, 1e-3F, 1e-5F}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      const std::vector<float> a = row(generator, 512, 4.0F);
      std::vector<float> b = a;
      std::normal_distribution<float> noise(0.0F, step);
      for (float& x : b) x += noise(generator);
      const Divergences got = compare_rows(a, b), expected = reference(a, b);
      expect_near(got, expected, 1e-9, 1e-15);
      EXPECT_NEAR(got.js / expected.js, 1.0, step > 1e-4F ? 1e-9 : 1e-6);
    }
  }
}

TEST(Divergence, IsZeroOnlyForEqualRowsAndBounded) {
  std::mt19937 generator(3);
  const std::vector<float> a = row(generator, 512, 3.0F);
  std::vector<float> shifted = a;
  for (float& x : shifted) x += 64.0F;
  const Divergences zero = compare_rows(a, a);
  EXPECT_EQ(zero.l1 + zero.l2 + zero.hellinger + zero.js + zero.kl, 0.0);
  EXPECT_LT(compare_rows(a, shifted).l1, 1e-4);  // float rounding of the shifted logits
  std::vector<float> one(512, -1000.0F), other(512, -1000.0F);
  one[3] = 1000.0F;
  other[4] = 1000.0F;
  const Divergences far = compare_rows(one, other);
  EXPECT_NEAR(far.l1, 2.0, 1e-8);
  EXPECT_NEAR(far.l2, std::sqrt(2.0), 1e-8);
  EXPECT_NEAR(far.hellinger, 1.0, 1e-5);
  EXPECT_NEAR(far.js, std::log(2.0), 1e-8);
  EXPECT_NEAR(far.kl, -std::log(kClip), 1e-6);  // what the clip allows
}

TEST(Divergence, AcgtSubsetIsRenormalised) {
  std::mt19937 generator(4);
  const std::vector<float> a = row(generator, 512, 3.0F), b = row(generator, 512, 3.0F);
  std::vector<float> a4, b4;
  for (const int32_t token : kBases) {
    a4.push_back(a[static_cast<std::size_t>(token)]);
    b4.push_back(b[static_cast<std::size_t>(token)]);
  }
  Distribution p, q;
  p.assign(a, kBases);
  q.assign(b, kBases);
  EXPECT_EQ(p.size(), 4);
  expect_near(compare(p, q), reference(a4, b4), 1e-11, 1e-14);
  EXPECT_EQ(p.top1(), std::max_element(a4.begin(), a4.end()) - a4.begin());
}

TEST(Divergence, DistributionSumsToOneAndFindsTheFirstMaximum) {
  Distribution p;
  p.assign(std::vector<float>{0, 2, -std::numeric_limits<float>::infinity(), 2, 1});
  double total = 0;
  for (int64_t i = 0; i < p.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    total += p.probabilities()[at];
    EXPECT_NEAR(std::exp(p.log_probabilities()[at]), p.probabilities()[at], 1e-14);
    EXPECT_NEAR(p.square_roots()[at] * p.square_roots()[at], p.probabilities()[at], 1e-15);
  }
  EXPECT_NEAR(total, 1.0, 1e-14);
  EXPECT_EQ(p.top1(), 1);
  EXPECT_NEAR(p.probabilities()[2], kClip, 1e-16);
  EXPECT_NEAR(p.log_sum_exp(), std::log(1 + 2 * std::exp(2.0) + std::exp(1.0)), 1e-14);
}

TEST(Divergence, TheLogSumOfExponentialsIsNotClipped) {
  Distribution p;
  p.assign(std::vector<float>{1, 2, 3, -200});
  EXPECT_NEAR(p.log_sum_exp(), std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0)), 1e-14);
}

TEST(Divergence, RefusesRowsThatAreNoDistribution) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  Distribution p;
  EXPECT_THROW(p.assign(std::vector<float>{1, nan}), CheckFailed);
  EXPECT_THROW(p.assign(std::vector<float>{1, infinity}), CheckFailed);
  EXPECT_THROW(p.assign(std::vector<float>{-infinity, -infinity}), CheckFailed);
  EXPECT_THROW(p.assign(std::vector<float>{}), CheckFailed);
  EXPECT_THROW(p.assign(std::vector<float>(100, nan), kBases), CheckFailed);
  EXPECT_THROW(p.assign(std::vector<float>(10, 0), kBases), InternalError);
  Distribution q;
  p.assign(std::vector<float>{1, 2});
  q.assign(std::vector<float>{1, 2, 3});
  EXPECT_THROW(compare(p, q), InternalError);
}

TEST(Divergence, IsFastEnoughForMillionsOfPositions) {
  std::mt19937 generator(5);
  std::vector<std::vector<float>> rows;
  for (int i = 0; i < 64; ++i) rows.push_back(row(generator, 512, 4.0F));
  Distribution p, q;
  double total = 0;
  const auto start = std::chrono::steady_clock::now();
  const int count = 4000;
  for (int i = 0; i < count; ++i) {
    p.assign(rows[static_cast<std::size_t>(i) % 64]);
    q.assign(rows[static_cast<std::size_t>(i * 7 + 1) % 64]);
    total += compare(p, q).kl;
  }
  const double microseconds =
      1e6 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / count;
  RecordProperty("microseconds_per_row", static_cast<int>(microseconds));
  EXPECT_GT(total, 0);
  EXPECT_LT(microseconds, 400);  // generous: sanitizers and a busy machine; about 15 otherwise
}

// scipy 1.x: distance.cityblock, distance.euclidean (of p, and of its square roots over sqrt 2),
// jensenshannon ** 2 and stats.entropy, of softmax in float64, clipped at 1e-12 and renormalised.
TEST(Divergences, EqualSciPys) {
  struct Case {
    const char* name;
    std::array<double (*)(double), 2> logits;
    Divergences expected;
  };
  const std::vector<Case> cases = {
      {"ordinary",
       {[](double i) { return 3 * std::sin(1.7 * i); }, [](double i) { return 5 * std::cos(0.9 * i); }},
       {1.7114154770484273, 0.43602536138771364, 0.81216252235289355, 0.51852881996821198,
        4.0057534813933486}},
      {"near",
       {[](double i) { return 3 * std::sin(1.7 * i); },
        [](double i) { return 3 * std::sin(1.7 * i) + 1e-4 * std::cos(i); }},
       {5.7542797301064958e-05, 1.8289861365090986e-05, 2.2708167280546491e-05, 5.1566086224998696e-10,
        2.0626464680777881e-09}},
      {"certain",
       {[](double i) { return i == 3 ? 60.0 : 0.0; }, [](double i) { return i == 5 ? 60.0 : 0.0; }},
       {1.9999999999359994, 1.4142135623278398, 0.99999899998449981, 0.69314718051051993,
        27.631021115044355}},
      {"one-sided",
       {[](double i) { return i == 3 ? 60.0 : 0.0; }, [](double) { return 0.0; }},
       {1.9374999999379998, 0.98425098421998003, 0.90731352058070258, 0.62312842018906989,
        3.4657359019121654}},
      {"vanishing, 1e-300",
       {[](double i) { return i == 0 ? 0.0 : -690.7755; },
        [](double i) { return std::fmod(i, 2) == 1 ? 0.0 : -690.7755; }},
       {1.9999999999359996, 1.03077640637143, 0.99999749998937493, 0.69314718032836498, 27.631021114659251}},
      {"wide",
       {[](double i) { return -40 - 40 * std::sin(2.3 * i); },
        [](double i) { return -40 - 40 * std::sin(2.3 * i + 0.5); }},
       {1.897717157016918, 0.86013597900394967, 0.86983875580746195, 0.59242807684485843, 4.999851957861253}},
      {"equal",
       {[](double i) { return 3 * std::sin(1.7 * i); }, [](double i) { return 3 * std::sin(1.7 * i); }},
       {0, 0, 0, 0, 0}}};
  for (const Case& c : cases) {
    std::array<std::vector<float>, 2> rows;
    for (std::size_t side = 0; side < 2; ++side) {
      for (int i = 0; i < 32; ++i) rows[side].push_back(static_cast<float>(c.logits[side](i)));
    }
    SCOPED_TRACE(c.name);
    expect_near(compare_rows(rows[0], rows[1]), c.expected, 0, 1e-9);
  }
}

}  // namespace
}  // namespace focus::metrics
