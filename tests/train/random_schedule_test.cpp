#include "focus/train/tasks/random_schedule.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "focus/core/error.h"

namespace focus::train {
namespace {

compress::MemoryConfig nominal() {
  compress::MemoryConfig memory;
  memory.window.size = 64;
  memory.focus.k = 10;
  return memory;
}
const std::vector<int64_t> kBlocks = {2, 5, 9};

TEST(RandomScheduleTest, OffMeansNominal) {
  const RandomConfig off;
  EXPECT_FALSE(off.active());
  EXPECT_EQ(config::to_json(draw_memory(off, nominal(), kBlocks, 42, 7)), config::to_json(nominal()));
}

TEST(RandomScheduleTest, DrawsDependOnSeedAndStepAlone) {
  RandomConfig config;
  config.k_range = {5, 50};
  config.layers = 0.5;
  const auto draw = [&](int64_t seed, int64_t step) {
    return config::to_json(draw_memory(config, nominal(), kBlocks, seed, step));
  };
  int differ_by_seed = 0;
  std::set<std::string> seen;
  for (int64_t step = 0; step < 50; ++step) {
    EXPECT_EQ(draw(1, step), draw(1, step));
    differ_by_seed += draw(1, step) != draw(2, step);
    seen.insert(draw(1, step));
  }
  EXPECT_GT(differ_by_seed, 40);
  EXPECT_GT(seen.size(), 30U);
}

TEST(RandomScheduleTest, DrawsStayWithinTheirBoundsAndReachThem) {
  RandomConfig config;
  config.k = {8, 16, 32};
  config.k_jitter = 2;
  config.layers = 0.3;
  std::map<int64_t, int> ks, layers;
  for (int64_t step = 0; step < 2000; ++step) {
    const auto memory = draw_memory(config, nominal(), kBlocks, 3, step);
    ++ks[memory.focus.k];
    ASSERT_FALSE(memory.focus.layers.empty());
    for (const int64_t block : memory.focus.layers) ++layers[block];
  }
  EXPECT_EQ(ks.size(), 15U) << "three values, each with a jitter of -2..2";
  EXPECT_EQ(ks.begin()->first, 6);
  EXPECT_EQ(ks.rbegin()->first, 34);
  for (const int64_t block : kBlocks) {
    // .3, and a third of the steps (.7^3) in which no layer was drawn
    EXPECT_NEAR(layers[block] / 2000.0, 0.3 + 0.343 / 3, 0.05) << block;
  }
}

TEST(RandomScheduleTest, WindowsFollowTheirSteps) {
  RandomConfig config;
  config.window = {{10, 16}, {20, 32}};
  const auto size = [&](int64_t step) {
    return draw_memory(config, nominal(), kBlocks, 1, step).window.size;
  };
  EXPECT_EQ(size(0), 16);
  EXPECT_EQ(size(9), 16);
  EXPECT_EQ(size(10), 32);
  EXPECT_EQ(size(19), 32);
  EXPECT_EQ(size(20), 64);
  EXPECT_EQ(config.largest_window(nominal()), 64);
  config.window = {{10, 128}};
  EXPECT_EQ(config.largest_window(nominal()), 128);
}

TEST(RandomScheduleTest, ImpossibleDrawsAreRefused) {
  const auto refused = [](const std::function<void(RandomConfig&)>& change) {
    RandomConfig config;
    change(config);
    EXPECT_THROW(config.validate(nominal()), ConfigError);
  };
  RandomConfig().validate(nominal());
  refused([](RandomConfig& c) { c.k = {65}; });
  refused([](RandomConfig& c) { c.k_range = {5}; });
  refused([](RandomConfig& c) { c.k_range = {9, 5}; });
  refused([](RandomConfig& c) { c.k = {5}, c.k_range = {5, 6}; });
  refused([](RandomConfig& c) { c.k_jitter = 10; });
  refused([](RandomConfig& c) { c.window = {{5, 9}}; });
  refused([](RandomConfig& c) { c.window = {{5, 16}, {5, 32}}; });
}

}  // namespace
}  // namespace focus::train
