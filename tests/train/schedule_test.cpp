#include "focus/train/loop/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "focus/core/error.h"

namespace focus::train {
namespace {

TEST(Schedule, WarmupRisesToThePeak) {
  const ScheduleConfig config;
  EXPECT_DOUBLE_EQ(lr_at(config, 1e-4, 0, 1000), 1e-4 / 200);
  EXPECT_DOUBLE_EQ(lr_at(config, 1e-4, 99, 1000), 0.5e-4);
  EXPECT_DOUBLE_EQ(lr_at(config, 1e-4, 199, 1000), 1e-4);
  EXPECT_DOUBLE_EQ(lr_at(config, 1e-4, 200, 1000), 1e-4);
  EXPECT_DOUBLE_EQ(lr_at(config, 1e-4, 5000, 1000), 1e-4);
}

TEST(Schedule, LinearAndCosineEndAtTheFinalRatio) {
  for (const DecayKind kind : {DecayKind::linear, DecayKind::cosine}) {
    const ScheduleConfig config{11, kind, 0.2};
    EXPECT_DOUBLE_EQ(lr_at(config, 1, 10, 111), 1);
    EXPECT_DOUBLE_EQ(lr_at(config, 1, 60, 111), 0.6);  // half way, both are at the middle
    EXPECT_DOUBLE_EQ(lr_at(config, 1, 110, 111), 0.2);
    EXPECT_DOUBLE_EQ(lr_at(config, 1, 500, 111), 0.2);
    for (int64_t step = 11; step < 111; ++step)
      EXPECT_LT(lr_at(config, 1, step, 111), lr_at(config, 1, step - 1, 111));
  }
  EXPECT_DOUBLE_EQ(lr_at({11, DecayKind::linear, 0.2}, 1, 35, 111), 0.8);
  EXPECT_DOUBLE_EQ(lr_at({11, DecayKind::cosine, 0}, 1, 35, 111), 0.5 * (1 + std::sqrt(0.5)));
}

TEST(Schedule, ShortRuns) {
  EXPECT_DOUBLE_EQ(lr_at({10, DecayKind::cosine, 0.1}, 1, 4, 5), 0.5);  // all warm-up
  EXPECT_DOUBLE_EQ(lr_at({0, DecayKind::linear, 0.1}, 1, 0, 1), 1);
  EXPECT_DOUBLE_EQ(lr_at({0, DecayKind::linear, 0.1}, 1, 1, 2), 0.1);
  EXPECT_THROW(lr_at({}, 1, -1, 10), InternalError);
  EXPECT_THROW(lr_at({}, 1, 0, 0), InternalError);
}

}  // namespace
}  // namespace focus::train
