#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "focus/core/error.h"
#include "focus/metrics/summary.h"

namespace focus::metrics {
namespace {

Summary of(const std::vector<float>& values) {
  Total total;
  QuantileSketch sorted;
  for (const float value : values) {
    total.add(static_cast<double>(value));
    sorted.add(value);
  }
  return summarise(total, sorted);
}

TEST(Summary, EqualsHandValues) {
  const Summary s = of({5, 1, 3, 2, 4});
  EXPECT_EQ(s.count, 5);
  EXPECT_EQ(s.mean, 3);
  EXPECT_EQ(s.median, 3);
  EXPECT_EQ(s.q25, 2);
  EXPECT_EQ(s.q75, 4);
  EXPECT_NEAR(s.p99, 4.96, 1e-12);
  EXPECT_EQ(s.max, 5);
  const Summary two = of({1, 2});
  EXPECT_EQ(two.median, 1.5);
  EXPECT_EQ(two.q25, 1.25);
  const Summary none = of({});
  EXPECT_EQ(none.count, 0);
  EXPECT_TRUE(std::isnan(none.mean) && std::isnan(none.median) && std::isnan(none.max));
  EXPECT_THROW(summarise({1, 1}, {}), InternalError);
}

TEST(Summary, MeansOfManySmallValuesKeepTheirDigits) {
  EXPECT_NEAR(of(std::vector<float>(3000000, 1e-7F)).mean / static_cast<double>(1e-7F), 1.0, 1e-12);
}

TEST(Bootstrap, IsSeededAndNeedsTwoSegments) {
  std::vector<Total> segments(10);
  for (std::size_t i = 0; i < segments.size(); ++i)
    segments[i] = {static_cast<double>(i * i), static_cast<int64_t>(i) + 1};
  const Interval a = bootstrap_mean(segments), b = bootstrap_mean(segments),
                 c = bootstrap_mean(segments, {1000, 7});
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_NE(a.low, c.low);
  EXPECT_LT(a.low, a.high);
  EXPECT_TRUE(std::isnan(bootstrap_mean(std::vector<Total>{{3, 1}}).low));
  EXPECT_TRUE(std::isnan(bootstrap_mean(std::vector<Total>{{3, 1}, {0, 0}}).high));
  EXPECT_TRUE(std::isnan(bootstrap_mean(std::vector<Total>{}).high));
}

TEST(Recovered, IsPairedOverSegments) {
  // The method keeps a quarter of the loss in every segment, however much segments differ: paired draws have
  // no spread at all.
  std::vector<Total> state_only, method;
  for (const double loss : {0.1, 3.0, 0.5, 8.0, 0.02}) {
    state_only.push_back({loss, 10});
    method.push_back({0.25 * loss, 10});
  }
  const Recovered recovered = recovered_share(method, state_only);
  EXPECT_NEAR(recovered.share, 0.75, 1e-12);
  EXPECT_NEAR(recovered.interval.low, 0.75, 1e-12);
  EXPECT_NEAR(recovered.interval.high, 0.75, 1e-12);
  EXPECT_NEAR(recovered_share(state_only, state_only).share, 0.0, 1e-15);
  EXPECT_TRUE(std::isnan(recovered_share(method, std::vector<Total>(5, {0.0, 10})).share));
  EXPECT_THROW(recovered_share(method, std::vector<Total>(3)), InternalError);
}

TEST(Bins, ByPositionRespectBoundaries) {
  const int64_t positions = 2599, window = 1000;
  const Binning binning = bin_by_position(positions, window, 32);
  int64_t expected = 0;
  for (std::size_t i = 0; i < binning.bins.size(); ++i) {
    const Bin& bin = binning.bins[i];
    EXPECT_EQ(bin.begin, expected);
    EXPECT_EQ(bin.begin / window, (bin.end - 1) / window);
    for (int64_t p = bin.begin; p < bin.end; ++p)
      EXPECT_EQ(binning.bin_of[static_cast<std::size_t>(p)], static_cast<int32_t>(i));
    expected = bin.end;
  }
  EXPECT_EQ(expected, positions);
  EXPECT_EQ(binning.bin_of.size(), static_cast<std::size_t>(positions));
  EXPECT_NEAR(static_cast<double>(binning.bins.size()), 26, 2);
  EXPECT_EQ(bin_by_position(positions, 1 << 20, 10).bins.size(), 10U);
  EXPECT_EQ(bin_by_position(positions, 1, 10).bins.size(), static_cast<std::size_t>(positions));
  EXPECT_THROW(bin_by_position(0, 1), InternalError);
}

TEST(Bins, ByOffsetStartAtTheFirstBoundary) {
  const int64_t positions = 250, window = 100;
  const Binning binning = bin_by_offset(positions, window);
  int64_t expected = 0;
  for (const Bin& bin : binning.bins) {
    EXPECT_EQ(bin.begin, expected);
    expected = bin.end;
  }
  EXPECT_EQ(expected, 100);
  EXPECT_EQ(binning.bins[0].end, 1);
  for (int64_t p = 0; p < positions; ++p) {
    const int32_t bin = binning.bin_of[static_cast<std::size_t>(p)];
    if (p < window) {
      EXPECT_EQ(bin, Binning::kNone);
      continue;
    }
    const Bin& of = binning.bins.at(static_cast<std::size_t>(bin));
    EXPECT_TRUE(of.begin <= p % window && p % window < of.end) << p;
  }
  EXPECT_TRUE(bin_by_offset(positions, positions).bins.empty());
  EXPECT_EQ(bin_by_offset(positions, 240).bins.back().end, 10);
}

TEST(Histogram, CountsByTheLogarithm) {
  Histogram h;
  for (const float value : {0.0F, 1e-9F, 1.01e-8F, 0.5F, 1000.0F}) h.add(value);
  EXPECT_EQ(h.below(), 2);
  EXPECT_EQ(h.counts()[0], 1);
  const auto half = static_cast<std::size_t>(std::floor(8 * (std::log10(0.5) + 8)));
  EXPECT_EQ(h.counts()[half], 1);
  EXPECT_EQ(h.counts().back(), 1);
}

// How often intervals hold the truth.
struct Coverage {
  double normal = 0, skewed = 0, share = 0;
};

// Segments whose levels differ by chance, and positions that lean on their segment: levels normal,
// log-normal, and a method's share of a log-normal level.
Coverage coverage(int segments, int trials) {
  constexpr int kPositions = 10;
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  Coverage out;
  const auto holds = [&](const Interval& interval, double truth) {
    return interval.low <= truth && truth <= interval.high ? 1.0 / trials : 0.0;
  };
  for (int trial = 0; trial < trials; ++trial) {
    std::vector<Total> even, own, base;
    for (int s = 0; s < segments; ++s) {
      const double centre = 2 + normal(generator), level = std::exp(0.5 * normal(generator));
      Total of_even, of_own, of_base;
      for (int p = 0; p < kPositions; ++p) {
        of_even.add(centre + 0.5 * normal(generator));
        of_own.add(level * std::exp(0.5 * normal(generator)));
        of_base.add(2 * level * std::exp(0.5 * normal(generator)));
      }
      even.push_back(of_even);
      own.push_back(of_own);
      base.push_back(of_base);
    }
    const BootstrapOptions options{.draws = 400, .seed = static_cast<uint64_t>(trial)};
    out.normal += holds(bootstrap_mean(even, options), 2);
    out.skewed += holds(bootstrap_mean(own, options), std::exp(0.25));
    out.share += holds(recovered_share(own, base, options).interval, 0.5);
  }
  return out;
}

// One standard error of a coverage of 2,000 trials is 0.5 %.
TEST(Bootstrap, IntervalsHoldTheTruthAsOftenAsTheySay) {
  const Coverage at_40 = coverage(40, 2000);
  EXPECT_GE(at_40.normal, 0.93);
  EXPECT_GE(at_40.skewed, 0.93);
  EXPECT_GE(at_40.share, 0.93);
  EXPECT_LE(at_40.normal, 0.97);
  RecordProperty("normal_of_40", std::to_string(at_40.normal));
  RecordProperty("skewed_of_40", std::to_string(at_40.skewed));
  RecordProperty("share_of_40", std::to_string(at_40.share));
}

// Eight segments tell less of a long tail: docs/evaluation.md has what is held here.
TEST(Bootstrap, EightSegmentsHoldTheTruthNearlyAsOften) {
  const Coverage at_8 = coverage(8, 2000);
  EXPECT_GE(at_8.normal, 0.92);
  EXPECT_GE(at_8.skewed, 0.90);
  EXPECT_GE(at_8.share, 0.92);
  EXPECT_LE(at_8.share, 0.97);
  RecordProperty("normal_of_8", std::to_string(at_8.normal));
  RecordProperty("skewed_of_8", std::to_string(at_8.skewed));
  RecordProperty("share_of_8", std::to_string(at_8.share));
}

}  // namespace
}  // namespace focus::metrics
