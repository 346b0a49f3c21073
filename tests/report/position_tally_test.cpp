#include "focus/report/position_tally.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <random>
#include <string>

#include "focus/core/error.h"
#include "focus/core/system_memory.h"
#include "focus/core/units.h"

namespace focus::report {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr auto kKl = static_cast<std::size_t>(Measure::kl);
constexpr auto kEntropy = static_cast<std::size_t>(Measure::cross_entropy);
constexpr auto kDelta = static_cast<std::size_t>(kDeltaCrossEntropy);

TEST(PositionTally, EqualsHandValues) {
  const PositionTally tally(6, 2);
  PositionValues values;
  values.values[kKl] = {9, 8, 1, kNan, 3, 5};
  values.values[kEntropy] = {1, 1, 2, kNan, 2, 4};
  SegmentPositions where;
  where.copied = {false, true, true, true, false, true};
  where.classes[0] = {1, 1, 0, 1, 1, 1};
  MethodResult out;
  tally.add({"a", 0, 0.5}, where, values, {1, 0.5F, 1, kNan, 2, 3}, out);
  tally.add({"b", 0, 0.0}, {}, values, {}, out);
  ASSERT_EQ(out.segments.size(), 2U);
  const SegmentTotals& first = out.segments[0];
  EXPECT_EQ(first.columns[kKl].before.sum, 17);
  EXPECT_EQ(first.columns[kKl].behind.sum, 9);
  EXPECT_EQ(first.columns[kKl].behind.count, 3);
  EXPECT_EQ(first.columns[kDelta].behind.sum, 2);
  EXPECT_EQ(first.copied.sum, 0.5 + 1 + 1);
  EXPECT_EQ(first.copied.count, 3);
  ASSERT_EQ(first.classes[0].size(), 2U);
  EXPECT_EQ(first.classes[0][0].kl.sum, 1);
  EXPECT_EQ(first.classes[0][1].kl.sum, 8);
  EXPECT_EQ(first.classes[0][1].delta_cross_entropy.sum, 1);
  EXPECT_TRUE(first.classes[1].empty());
  EXPECT_EQ(out.segments[1].columns[kDelta].behind.count, 0) << "full memory's is not known";
  const ColumnTally& kl = out.columns[kKl];
  EXPECT_EQ(kl.before.count(), 4);
  EXPECT_EQ(kl.repeat_rich.quantile(0.5), 3);
  EXPECT_EQ(kl.ordinary.count(), 3);
  EXPECT_EQ(kl.distribution.counts()[64], 2);  // both ones
  ASSERT_EQ(kl.by_position.size(), 6U);
  EXPECT_EQ(kl.by_position[4].total.sum, 6);
  EXPECT_EQ(kl.by_offset.size(), 2U);
  EXPECT_EQ(kl.by_offset[0].total.sum, 2 * (1 + 3));
  EXPECT_EQ(kl.by_offset[1].total.count, 2);
  values.values[kKl].pop_back();
  EXPECT_THROW(tally.add({"c"}, where, values, {}, out), InternalError);
}

// FOCUS_TALLY_POSITIONS=100000000 shows it for so many positions.
TEST(PositionTally, HoldsNoMoreForMorePositions) {
  const char* asked = std::getenv("FOCUS_TALLY_POSITIONS");
  const int64_t most = asked != nullptr ? std::stoll(asked) : 3000000, length = 100000;
  const PositionTally tally(length, 1024);
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(-7, 3);
  PositionValues values;
  SegmentPositions where;
  for (auto& measure : values.values) {
    for (int64_t p = 0; p < length; ++p) measure.push_back(std::exp(normal(generator)));
  }
  const std::vector<float> full(static_cast<std::size_t>(length), 1.0F);
  where.copied.assign(static_cast<std::size_t>(length), true);
  for (auto& classes : where.classes) {
    for (int64_t p = 0; p < length; ++p) classes.push_back(static_cast<uint8_t>(p % 4));
  }
  MethodResult out;
  constexpr int64_t kFirst = 1000000;
  int64_t after_a_million = 0;
  for (int64_t positions = length; positions <= most; positions += length) {
    // Other values in each segment.
    for (auto& measure : values.values) std::rotate(measure.begin(), measure.begin() + 12345, measure.end());
    for (float& value : values.values[kKl]) value *= value > 0.1F ? 0.37F : 1.01F;
    tally.add({"a", positions, 0}, where, values, full, out);
    const bool power = positions == kFirst || positions == 10 * kFirst || positions == most;
    if (!power) continue;
    const int64_t resident = read_process_memory().own;
    std::cout << format_count(positions) << " positions: " << format_bytes(resident) << " resident\n";
    if (after_a_million == 0) after_a_million = resident;
    EXPECT_LE(resident, after_a_million + positions / length * 2048 + (int64_t{1} << 20));
  }
  EXPECT_EQ(static_cast<int64_t>(out.segments.size()), most / length);
}

}  // namespace
}  // namespace focus::report
