// The rules of a layer against a walk that drops base by base.
#include "focus/compress/plan/layer_rules.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "support/random_memory.h"

namespace focus::compress {
namespace {

using testing::random_memory;

// Where every base in the past shows itself: raw, through exactly one k-mer's entries, or, as the rules say,
// not at all.
TEST(LayerRulesTest, EveryBaseOfThePastIsSeenOnce) {
  int64_t draws = 0, rolling = 0, tails = 0, sinks = 0, recent = 0;
  for (int64_t seed = 0; draws < 300; ++seed) {
    const MemoryConfig config = random_memory(seed);
    const auto layer = config.focus.at(2);
    if (!layer || config.kind_at(2) != MemoryKind::focus) continue;  // no entries
    ++draws;
    const LayerRules rules(config.window, *layer);
    const WindowPlan& plan = rules.plan();
    rolling += rules.rolling();
    tails += layer->tail > 0;
    sinks += layer->sinks > 0;
    recent += layer->recent.bases > 0;
    for (int64_t t = 0; t < 90; ++t) {
      const auto seen = rules.visible(t);
      ASSERT_LE(seen.raw_begin, t) << config::to_json(config);
      // Which entries, laid out in the order of their making, belong to which k-mer.
      const auto shown = [&](int64_t base) {
        if (base < rules.sink_bases()) return base >= seen.entry_begin && base < seen.entry_end;
        const int64_t window = plan.window_of(base), j = plan.kmer_of(base);
        if (j < 0) return false;
        const int64_t kmer = plan.kmers_before(window) + j,
                      begin = std::max(rules.entry_index(kmer), rules.sink_bases()),
                      end = rules.entry_index(kmer + 1);
        EXPECT_EQ(end - begin, rules.entries_of(plan.kmer(window, j)));
        EXPECT_TRUE(end <= seen.entry_begin || begin >= seen.entry_begin);
        EXPECT_TRUE(end <= seen.entry_end || begin >= seen.entry_end);
        return begin >= seen.entry_begin && end <= seen.entry_end;
      };
      for (int64_t base = 0; base <= t; ++base) {
        const bool raw = base >= seen.raw_begin, summarised = shown(base);
        if (!rules.shows_open_entries() || rules.by_kmer()) {
          ASSERT_FALSE(raw && summarised) << "base " << base << " twice from " << t;
        }
        const int64_t first_code = seen.raw_begin - seen.recent;
        const bool coded = base >= first_code && base < seen.raw_begin;
        ASSERT_FALSE(coded && summarised) << "base " << base << " twice from " << t;
        // Of a k-mer whose last bases are codes nothing else is left.
        const bool cut = seen.recent > 0 && base < first_code && rules.atom(base).end > first_code;
        const bool dropped = plan.kmer_of(base) < 0 || cut;
        if (layer->history == History::all && !dropped) {
          ASSERT_TRUE(raw || coded || summarised) << "base " << base << " from " << t << "\n"
                                                  << config::to_json(config);
        }
        if (layer->history == History::none && base >= rules.sink_bases()) {
          ASSERT_FALSE(summarised);
        }
        if (summarised && base >= rules.sink_bases()) {
          ASSERT_LE(plan.kmer(plan.window_of(base), plan.kmer_of(base)).end, t) << "a k-mer that is not over";
        }
      }
      if (rules.rolling()) {
        ASSERT_LE(t - seen.raw_begin + 1, config.window.size);
        ASSERT_GT(t - seen.raw_begin + 1, std::min(t + 1, config.window.size) - plan.k() * 2);
      }
      if (t > 0 && !(rules.visible(t - 1) == seen)) {
        ASSERT_EQ(rules.next_change(t - 1), t);
      }
      ASSERT_GT(rules.next_change(t), t);
    }
  }
  EXPECT_GT(rolling, 20);
  EXPECT_GT(tails, 20);
  EXPECT_GT(sinks, 20);
  EXPECT_GT(recent, 20);
}

TEST(LayerRulesTest, DefaultHoldsWhatEq4Says) {
  const MemoryConfig config;
  const LayerRules rules(config.window, config.focus);
  for (const int64_t length :
       {int64_t{1}, int64_t{1023}, int64_t{1024}, int64_t{1025}, int64_t{99'999}, int64_t{1'000'000}}) {
    const auto held = rules.held(length);
    EXPECT_EQ(held.entries + held.open_bases, rules.plan().kept_entries(length)) << length;
  }
}

TEST(LayerRulesTest, ATailIsRoundedUpToWholeKmersAndSinksAreNot) {
  MemoryConfig config;
  config.window.size = 20;
  config.focus.k = 5;
  config.focus.tail = 7;
  config.focus.sinks = 3;
  const LayerRules rules(config.window, config.focus);
  EXPECT_EQ(rules.sink_bases(), 3);
  EXPECT_EQ(rules.sink_kmers(), 0);
  EXPECT_EQ(rules.summarised({0, 5}), (Span{3, 5}));
  EXPECT_EQ(rules.tail_begin(1), 10);
  // The first base of the third window: three raw sinks, six k-mers whose bases are gone, the first of them
  // without its sinks, ten raw bases of the second window, itself.
  EXPECT_EQ(rules.visible(40), (LayerRules::Visible{30, 0, 3 + 6}));
  EXPECT_EQ(rules.held(40).entries, 3 + 8);  // the tail's two are made and wait
  EXPECT_EQ(rules.held(40).open_bases, 10);
}

TEST(LayerRulesTest, CodesStandForTheNewestBasesOfClosedWindows) {
  MemoryConfig config;
  config.window.size = 20;
  config.focus.k = 5;
  config.focus.recent.bases = 7;
  const LayerRules rules(config.window, config.focus);
  EXPECT_EQ(rules.visible(19), (LayerRules::Visible{0, 0, 0, 0}));
  // 7 of the first window: entries of its k-mers that end before them.
  EXPECT_EQ(rules.visible(20), (LayerRules::Visible{20, 0, 2, 7}));
  // 21 of three windows: all of the third and the last of the second.
  EXPECT_EQ(rules.visible(60), (LayerRules::Visible{60, 0, 7, 21}));
  EXPECT_EQ(rules.held(65).entries, 12);
  EXPECT_EQ(rules.held(65).recent, 21);
  config.focus.recent.bases = 100;  // more than there are
  EXPECT_EQ(LayerRules(config.window, config.focus).visible(45), (LayerRules::Visible{40, 0, 0, 40}));
  config.focus.sinks = 3;  // raw for ever
  EXPECT_EQ(LayerRules(config.window, config.focus).visible(45), (LayerRules::Visible{40, 0, 3, 37}));
  config.focus.recent.bases = 15;  // less 24 for the sinks, once
  EXPECT_EQ(LayerRules(config.window, config.focus).visible(25), (LayerRules::Visible{20, 0, 3 + 4, 0}));
  EXPECT_EQ(LayerRules(config.window, config.focus).visible(45), (LayerRules::Visible{40, 0, 3 + 6, 6}));
}

// A first window that is longer than the others: bases that were dropped do not come back.
TEST(LayerRulesTest, AWindowAddsNoMoreCodesThanItHasBases) {
  MemoryConfig config;
  config.window = {.size = 2, .unit = WindowUnit::focus};
  config.focus.k = 8;
  config.focus.recent.bases = 10;
  const LayerRules rules(config.window, config.focus);
  for (const int64_t begin : {16, 24, 32, 40}) {
    EXPECT_EQ(rules.visible(begin), (LayerRules::Visible{begin, 0, 0, begin - 6})) << begin;
    EXPECT_EQ(rules.held(begin).recent, begin - 6);
  }
}

TEST(LayerRulesTest, RollingDropsAKmerWhenItsFirstBaseIsWBasesOld) {
  MemoryConfig config;
  config.window.size = 20;
  config.focus.k = 5;
  config.focus.eviction = Eviction::rolling;
  const LayerRules rules(config.window, config.focus);
  EXPECT_EQ(rules.visible(19), (LayerRules::Visible{0, 0, 0}));
  EXPECT_EQ(rules.visible(20), (LayerRules::Visible{5, 0, 1}));
  EXPECT_EQ(rules.visible(24), (LayerRules::Visible{5, 0, 1}));
  EXPECT_EQ(rules.visible(25), (LayerRules::Visible{10, 0, 2}));
  EXPECT_EQ(rules.next_change(20), 25);
}

TEST(LayerRulesTest, LaterScheduleEntriesWin) {
  FocusConfig focus;
  focus.schedule = {{.from = 0, .to = 9, .k = 50},
                    {.from = 4, .to = 6, .memory = MemoryKind::full},
                    {.from = 6, .to = 6, .k = 25}};
  EXPECT_EQ(focus.at(0)->k, 50);
  EXPECT_FALSE(focus.at(4).has_value());
  EXPECT_EQ(focus.at(6)->k, 25);
  EXPECT_EQ(focus.at(10)->k, 100);
  focus.layers = {0, 10};
  EXPECT_FALSE(focus.at(6).has_value());
}

}  // namespace
}  // namespace focus::compress
