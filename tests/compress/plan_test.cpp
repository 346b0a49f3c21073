#include "focus/compress/plan/plan.h"

#include <gtest/gtest.h>

#include "focus/compress/plan/config.h"
#include "focus/core/error.h"
#include "support/idle_settings.h"

namespace focus::compress {
namespace {

WindowPlan plan(int64_t size, int64_t k, WindowUnit unit = WindowUnit::bases,
                Remainder remainder = Remainder::own) {
  return WindowPlan({size, unit, remainder}, k);
}

std::vector<WindowPlan> many_plans() {
  std::vector<WindowPlan> out;
  for (const auto remainder : {Remainder::own, Remainder::merge, Remainder::drop}) {
    for (const auto& [size, k] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {7, 1}, {7, 7}, {10, 3}, {16, 4}, {16, 5}, {1024, 100}, {9, 8}})
      out.push_back(plan(size, k, WindowUnit::bases, remainder));
    for (const auto& [size, k] : std::vector<std::pair<int64_t, int64_t>>{{2, 1}, {2, 5}, {4, 3}, {10, 7}})
      out.push_back(plan(size, k, WindowUnit::focus, remainder));
  }
  return out;
}

// Everything about a base, counted out one base at a time.
TEST(WindowPlanTest, AgreesWithWalkingBaseByBase) {
  for (const WindowPlan& p : many_plans()) {
    int64_t kmers_seen = 0;
    const int64_t total = p.window(5).end;
    for (int64_t w = 0; w < 5; ++w) {
      ASSERT_EQ(p.window(w).end, p.window(w + 1).begin);
      ASSERT_EQ(p.kmers_before(w), kmers_seen);
      kmers_seen += p.num_kmers(w);
      int64_t covered = p.window(w).begin;
      for (int64_t j = 0; j < p.num_kmers(w); ++j) {
        ASSERT_EQ(p.kmer(w, j).begin, covered);
        ASSERT_GT(p.kmer(w, j).size(), 0);
        covered = p.kmer(w, j).end;
      }
      ASSERT_LE(covered, p.window(w).end);
    }
    for (int64_t t = 0; t < total; ++t) {
      const int64_t w = p.window_of(t), j = p.kmer_of(t);
      ASSERT_TRUE(t >= p.window(w).begin && t < p.window(w).end);
      if (j >= 0) {
        ASSERT_TRUE(t >= p.kmer(w, j).begin && t < p.kmer(w, j).end);
      } else {
        ASSERT_GE(t, p.kmer(w, p.num_kmers(w) - 1).end);
      }
      int64_t completed = 0;
      for (int64_t v = 0; v <= w; ++v) {
        for (int64_t i = 0; i < p.num_kmers(v); ++i) completed += p.kmer(v, i).end <= t;
      }
      ASSERT_EQ(p.kmers_completed(t), completed) << "base " << t;
    }
  }
}

// Eq. 4: sum over closed windows of ceil(|I_w| / k), plus the bases of the open one.
TEST(WindowPlanTest, KeptEntriesEqualEq4) {
  for (const auto& [size, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1024, 100}, {16, 5}, {7, 7}, {10, 1}}) {
    const WindowPlan p = plan(size, k);
    for (int64_t length = 0; length < 5 * size; length += std::max<int64_t>(size / 9, 1)) {
      const int64_t closed = length / size, expected = closed * ((size + k - 1) / k) + length % size;
      EXPECT_EQ(p.kept_entries(length), expected) << size << " " << k << " " << length;
    }
  }
}

TEST(WindowPlanTest, WindowsOfFocusTokensShareOne) {
  const WindowPlan p = plan(4, 10, WindowUnit::focus);
  EXPECT_EQ(p.window(0), (Span{0, 40}));
  EXPECT_EQ(p.window(1), (Span{40, 70}));
  EXPECT_EQ(p.num_kmers(0), 4);
  EXPECT_EQ(p.num_kmers(1), 3);  // the fourth is the shared one of window 0
}

TEST(WindowPlanTest, ImpossiblePlansAreRefused) {
  EXPECT_THROW(plan(10, 11), ConfigError);
  EXPECT_THROW(plan(0, 1), ConfigError);
  EXPECT_THROW(plan(1, 5, WindowUnit::focus), ConfigError);
  const int64_t large = int64_t{1} << 32;  // the largest size and k that a configuration may name
  EXPECT_THROW(plan(large, large, WindowUnit::focus), ConfigError);
  EXPECT_EQ(plan(large, 256, WindowUnit::focus).window(1).end, (2 * large - 1) * 256);
}

TEST(MemoryConfigTest, SettingsWithoutEffectAreRefused) {
  testing::expect_idle_settings_refused<MemoryConfig>({{},
                                                       {"far.kmers=4"},
                                                       {"far.kmers=4", "far.place=file"},
                                                       {"far.kmers=4", "far.score=sketch"},
                                                       {"focus.unit=paper"},
                                                       {"memory.kind=tables", "focus.schedule=[{}]"},
                                                       {"memory.kind=quantised"},
                                                       {"focus.fitted.corrections=false"},
                                                       {"focus.local=kmer"},
                                                       {"focus.eviction=rolling"},
                                                       {"focus.history=none"},
                                                       {"focus.schedule=[{\"memory\": \"full\"}]"}});
}

// What a block's settings come to counts, not what each of two places says.
TEST(MemoryConfigTest, ASchedulesSettingsWithoutEffectAreRefused) {
  MemoryConfig config;
  config.focus.eviction = Eviction::rolling;
  config.focus.schedule = {{.from = 3, .to = 4, .tail = 20}};
  try {
    config.validate();
    FAIL() << "expected ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(
        error.what(),
        "focus.schedule.0.tail has no effect unless focus.schedule.0.eviction is 'window'; remove it");
  }
  config.focus.schedule[0].eviction = Eviction::window;
  EXPECT_NO_THROW(config.validate());
}

TEST(MemoryConfigTest, SenselessCombinationsAreRefused) {
  const auto refused = [](const std::function<void(MemoryConfig&)>& change) {
    MemoryConfig config;
    change(config);
    EXPECT_THROW(config.validate(), ConfigError);
  };
  MemoryConfig().validate();
  refused([](MemoryConfig& c) { c.focus.k = 2000; });
  refused([](MemoryConfig& c) {
    c.focus.stream = Stream::inline_tokens;
    c.focus.anchor = Anchor::start;
  });
  refused([](MemoryConfig& c) { c.focus.paper.update = Update::replace; });
  refused([](MemoryConfig& c) {
    c.focus.unit = UnitKind::paper;
    c.focus.fitted.ridge = 2.0;
  });
  refused([](MemoryConfig& c) { c.focus.bias = false; });
  refused([](MemoryConfig& c) {
    c.focus.fitted.corrections = false;
    c.focus.rank = 4;
  });
}

}  // namespace
}  // namespace focus::compress
