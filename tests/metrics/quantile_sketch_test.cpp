#include "focus/metrics/quantile_sketch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace focus::metrics {
namespace {

constexpr double kBound = 1.0 / 256;  // 0.39 %
constexpr double kShares[] = {0, 0.001, 0.25, 0.5, 0.75, 0.99, 0.9999, 1};

double exact(std::vector<float> values, double share) {
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const double low = values[below], high = values[std::min(below + 1, values.size() - 1)];
  return low + (place - static_cast<double>(below)) * (high - low);
}

QuantileSketch of(const std::vector<float>& values) {
  QuantileSketch out;
  for (const float value : values) out.add(value);
  return out;
}

// Values as KL has them, from rounding to nats.
std::vector<float> spread(std::size_t count, double sigma, uint32_t seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(-5, sigma);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(std::exp(normal(generator)));
  return values;
}

TEST(QuantileSketch, StaysWithinItsBoundOverManyDecades) {
  for (const double sigma : {0.001, 0.1, 1.0, 5.0, 12.0}) {
    const std::vector<float> values = spread(200001, sigma);
    const QuantileSketch sketch = of(values);
    for (const double share : kShares) {
      const double truth = exact(values, share);
      EXPECT_NEAR(sketch.quantile(share) / truth, 1, kBound) << sigma << " " << share;
    }
    EXPECT_EQ(sketch.max(), static_cast<double>(*std::max_element(values.begin(), values.end())));
    EXPECT_EQ(sketch.count(), 200001);
  }
}

TEST(QuantileSketch, OrdersBothSigns) {
  std::vector<float> values = spread(50000, 4);
  for (std::size_t i = 0; i < values.size(); i += 3) values[i] = -values[i];
  const QuantileSketch sketch = of(values);
  for (const double share : kShares) {
    const double truth = exact(values, share);
    EXPECT_NEAR(sketch.quantile(share), truth, kBound * std::abs(truth)) << share;
  }
}

TEST(QuantileSketch, IsExactWhereValuesAreFewOrAlike) {
  const std::vector<float> few = {3.25F, -1e-30F, 0, 7, 1e30F, 0.1F, 1e-36F};
  for (const double share : {0.0, 1.0 / 6, 0.5, 1.0})
    EXPECT_DOUBLE_EQ(of(few).quantile(share), exact(few, share)) << share;
  for (const float value : {0.0F, 1.0F, 0.3F, -2.7F, 1e-20F})
    EXPECT_EQ(of(std::vector<float>(1000, value)).quantile(0.3), static_cast<double>(value));
  EXPECT_EQ(of({-0.0F, 0.0F, 1.0F}).quantile(0.5), 0);
  EXPECT_TRUE(std::isnan(QuantileSketch().quantile(0.5)) && std::isnan(QuantileSketch().max()));
  constexpr float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(of({1, infinity, infinity}).quantile(0.99), static_cast<double>(infinity));
}

TEST(QuantileSketch, PartsInAnyOrderAreTheWhole) {
  const std::vector<float> values = spread(30000, 6);
  const QuantileSketch whole = of(values);
  QuantileSketch merged = of({values.begin() + 20000, values.end()});
  merged.add(of({values.begin(), values.begin() + 7}));
  merged.add(of({values.begin() + 7, values.begin() + 20000}));
  merged.add(QuantileSketch());
  for (const double share : kShares) EXPECT_EQ(merged.quantile(share), whole.quantile(share)) << share;
  EXPECT_EQ(merged.max(), whole.max());
  EXPECT_EQ(merged.count(), whole.count());
}

}  // namespace
}  // namespace focus::metrics
