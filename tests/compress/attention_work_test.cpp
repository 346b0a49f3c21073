#include "focus/compress/attention_work.h"

#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "focus/compress/plan/layer_rules.h"
#include "support/small_model.h"

namespace focus::compress {
namespace {

using focus::testing::small_model;

MemoryConfig plan_of(int64_t window, int64_t k) {
  MemoryConfig config;
  config.window.size = window;
  config.focus.k = k;
  return config;
}

TEST(AttentionWorkTest, FullMemoryShowsEveryBaseItsPast) {
  EXPECT_EQ(keys_seen(nullptr, 0, 100, 100).pairs, 5050);
  EXPECT_EQ(keys_seen(nullptr, 0, 100, 7).pairs, 5050);
  EXPECT_EQ(keys_seen(nullptr, 0, 100, 100).read, 100);
  EXPECT_EQ(keys_seen(nullptr, 0, 100, 50).read, 50 + 100);
  EXPECT_EQ(keys_seen(nullptr, 100, 101, 1).pairs, 101);
}

TEST(AttentionWorkTest, FocusShowsWhatTheRulesSay) {
  const auto model = small_model(at::kFloat);
  for (const auto& [window, k] : {std::pair{32, 8}, {32, 5}, {48, 7}}) {
    const MemoryConfig config = closed_form(plan_of(window, k));
    const auto fitted = make_memory("fitted", model, config);
    const LayerRules rules(config.window, config.focus);
    double pairs = 0;
    for (int64_t t = 0; t < 500; ++t) {
      const LayerRules::Visible seen = rules.visible(t);
      pairs += static_cast<double>(t + 1 - seen.raw_begin + seen.entry_end - seen.entry_begin);
      for (const int64_t chunk : {int64_t{1}, int64_t{13}, int64_t{64}, int64_t{500}})
        ASSERT_EQ(keys_seen(fitted.get(), 0, t + 1, chunk).pairs, pairs) << window << ' ' << k << ' ' << t;
    }
    EXPECT_EQ(keys_seen(fitted.get(), 300, 301, 1).pairs,
              keys_seen(fitted.get(), 0, 301, 301).pairs - keys_seen(fitted.get(), 0, 300, 300).pairs);
  }
}

TEST(AttentionWorkTest, WithoutEntriesOnlyTheOpenWindowIsSeen) {
  const auto model = small_model(at::kFloat);
  const auto none = make_memory("state_only", model, plan_of(32, 8));
  EXPECT_EQ(keys_seen(none.get(), 0, 64, 64).pairs, 2 * 32 * 33 / 2);
}

TEST(AttentionWorkTest, FarMemoryAddsFullListsAtMost) {
  const auto model = small_model(at::kFloat);
  MemoryConfig config = plan_of(32, 8);
  config.far.kmers = 2;
  config.far.refresh = 4;
  const auto far = make_memory("far_state_only", model, config);
  EXPECT_EQ(keys_seen(far.get(), 0, 64, 64).pairs, 2 * 32 * 33 / 2 + 32 * 16);
  // The second window's eight lists: 16 fetched bases each, and 4 to 32 of its own.
  EXPECT_EQ(keys_seen(far.get(), 0, 64, 64).read, 32 + 8 * 16 + (4 + 32) * 4);
  // Two layers; keys and values of two heads of 8 channels.
  const double kmer = 2 * (2 * 2 * 8 * 8 * 4);
  EXPECT_EQ(far_traffic(far.get(), 0, 64).stored, 8 * kmer);
  EXPECT_EQ(far_traffic(far.get(), 0, 64).fetched, 8 * 2 * kmer);
  EXPECT_EQ(far_traffic(far.get(), 40, 41).fetched, 2 * kmer);
  config.far.keep = 8;
  EXPECT_EQ(far_traffic(make_memory("far_state_only", model, config).get(), 0, 64).fetched, 8 * kmer);
  EXPECT_EQ(far_traffic(make_memory("state_only", model, plan_of(32, 8)).get(), 0, 64).stored, 0);
}

TEST(AttentionWorkTest, ClosingAWindowScoresItsReferences) {
  const model::BackboneShape shape = {"", 512, 4096, 32, 32, 128, 0};
  FittedUnitConfig unit;  // every fourth query is a reference
  unit.check = false;
  const auto plain = fit_work(unit, shape, 5, 1, 1024, 11);
  const double scores = 2.0 * 256 * 1024 * 128, regression = 4.0 * 256 * 129 * 11 + 2.0 * 256 * 129 * 129 +
                                                             2.0 * 128 * 128 * 128 / 3 + 2.0 * 128 * 128 * 11;
  EXPECT_DOUBLE_EQ(plain.flop, 5 * 32 * (scores + regression));
  unit.check = true;
  EXPECT_DOUBLE_EQ(fit_work(unit, shape, 5, 3, 1024, 11).flop, 3 * 5 * 32 * (3 * scores + regression));
  EXPECT_GT(fit_work(unit, shape, 5, 1, 1024, 11).bytes, plain.bytes);
}

}  // namespace
}  // namespace focus::compress
