#include "focus/report/gates.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "focus/core/error.h"
#include "focus/report/fidelity_report.h"
#include "recorded_run.h"
#include "support/temporary_folder.h"

namespace focus::report {
namespace {

/// Segments of 20 positions in windows of 8; every value of a method in segment s is `level` + s / 100.
RecordedRun run(double fitted, double cross_entropy = 1.2, int64_t segments = 6) {
  RecordedRun result;
  result.window = 8;
  result.kmer = 4;
  result.length = 21;
  result.positions = 20;
  result.config_json = "{}";
  result.provenance["fasta_digest"] = "f";
  for (int64_t s = 0; s < segments; ++s)
    result.segments.push_back({{"chr", 100 * s}, {std::vector<bool>(20, s < 2), {}}});
  for (const auto& [name, level] :
       {std::pair{"full", 0.0}, std::pair{"state_only", 0.4}, std::pair{"fitted", fitted}}) {
    RecordedMethod& method = result.methods.emplace_back();
    method.name = name;
    method.kept_bytes = 12;
    for (auto& values : method.values) {
      for (int64_t s = 0; s < segments; ++s)
        values.insert(values.end(), 20,
                      static_cast<float>(level + (level > 0 ? 0.01 * static_cast<double>(s) : 0)));
    }
    // Where bases are copied, in segments 0 and 1, full memory gains a nat over state_only.
    auto& own = method.values[static_cast<std::size_t>(Measure::cross_entropy)];
    for (std::size_t i = 0; i < own.size(); ++i)
      own[i] = static_cast<float>(cross_entropy + (i < 40 ? level / 0.4 : 0));
  }
  return result;
}

class GatesTest : public ::testing::Test {
 protected:
  RunSummary written(const FidelityResult& result, const std::string& name) const {
    write_fidelity_report(result, space_ / name);
    return read_run_summary(space_ / name);
  }
  testing::TemporaryFolder space_;
};

TEST_F(GatesTest, ASummaryIsReadAsItWasWritten) {
  const RunSummary summary = written(run(0.1), "run");
  EXPECT_EQ(summary.window, 8);
  EXPECT_EQ(summary.main_scope, "after_boundary");
  EXPECT_EQ(summary.segments.at(1), "chr:100");
  const MethodSummary* fitted = summary.find("fitted");
  ASSERT_NE(fitted, nullptr);
  EXPECT_EQ(summary.find("focus"), nullptr);
  EXPECT_EQ(fitted->kept_bytes, 12);
  EXPECT_NEAR(fitted->measures.at("kl").mean, 0.125, 1e-6);
  EXPECT_LT(fitted->measures.at("kl").low, 0.125);
  EXPECT_NEAR(fitted->recovered, 1 - 0.125 / 0.425, 1e-6);
  EXPECT_NEAR(fitted->recall, 0.75, 1e-6);
  EXPECT_EQ(summary.copied_positions, 40);
  EXPECT_NEAR(fitted->segment_kl.at(3), 0.13, 1e-6);
  EXPECT_FALSE(summary.is_random());
  EXPECT_TRUE(written(run(0.1, std::log(512.0)), "random").is_random());
  EXPECT_THROW(read_run_summary(space_ / "none"), DataError);
}

TEST_F(GatesTest, EachBoundIsHeldOnItsOwn) {
  const RunSummary summary = written(run(0.1), "run");
  const auto passed = [&](const Gates& gates) {
    std::string out;
    for (const GateResult& gate : check_gates(gates, summary, "fitted", {})) out += gate.passed ? '+' : '-';
    return out;
  };
  EXPECT_EQ(passed({.max_kl = 0.13, .min_r = 0.7, .min_top1 = 0.12, .min_recall = 0.74}), "++++");
  EXPECT_EQ(passed({.max_kl = 0.12, .min_r = 0.72, .min_top1 = 0.13, .min_recall = 0.76}), "----");
  EXPECT_EQ(passed({}), "");
  // Of full memory's 12 bytes all are held; a perplexity is the exponential of the loss.
  const double rise = std::expm1(summary.find("fitted")->measures.at("delta_cross_entropy").mean);
  EXPECT_GT(rise, 0);
  EXPECT_EQ(passed({.min_memory_drop = 0, .max_perplexity_rise = rise + 1e-6}), "++");
  EXPECT_EQ(passed({.min_memory_drop = 0.01, .max_perplexity_rise = rise - 1e-6}), "--");
  RecordedRun smaller = run(0.1);
  smaller.methods[0].kept_bytes = 40, smaller.methods[0].open_bytes = 8;
  smaller.methods[2].kept_bytes = 12, smaller.methods[2].open_bytes = 9, smaller.methods[2].far_bytes = 3;
  const RunSummary half = written(smaller, "smaller");
  EXPECT_TRUE(check_gates({.min_memory_drop = 0.5}, half, "fitted", {}).at(0).passed);
  EXPECT_FALSE(check_gates({.min_memory_drop = 0.51}, half, "fitted", {}).at(0).passed);
}

TEST_F(GatesTest, ABaselineIsComparedSegmentBySegment) {
  const RunSummary summary = written(run(0.11), "run");
  const auto against = [&](const FidelityResult& other) {
    return check_gates({.baseline = "other"}, summary, "fitted", written(other, "other")).at(0).passed;
  };
  // 0.01 more in each segment is worse, though segments differ by more than that.
  EXPECT_FALSE(against(run(0.10)));
  EXPECT_TRUE(against(run(0.11)));
  EXPECT_TRUE(against(run(0.12)));
  RecordedRun mixed = run(0.11);  // worse in some, better in others
  for (std::size_t i = 0; i < 60; ++i) mixed.methods[2].values[0][i] -= 0.05F;
  for (std::size_t i = 60; i < 120; ++i) mixed.methods[2].values[0][i] += 0.05F;
  EXPECT_TRUE(against(mixed));
  RecordedRun elsewhere = run(0.1);
  elsewhere.segments[2].begin += 1;
  EXPECT_THROW(against(elsewhere), ConfigError);
  RecordedRun of_other_letters = run(0.1);
  of_other_letters.provenance["fasta_digest"] = "g";
  EXPECT_THROW(against(of_other_letters), ConfigError);
}

TEST_F(GatesTest, WhatCannotBeAnsweredIsRefused) {
  EXPECT_THROW(require_answerable({.min_r = 0.5}, {"full", "fitted"}, "fitted"), ConfigError);
  EXPECT_THROW(require_answerable({.min_recall = 0.5}, {"full", "fitted"}, "fitted"), ConfigError);
  EXPECT_THROW(require_answerable({.max_kl = 0.5}, {"full", "fitted"}, "focus"), ConfigError);
  EXPECT_THROW(require_answerable({.method = "fitted"}, {"full", "fitted"}, "fitted"), ConfigError);
  EXPECT_NO_THROW(require_answerable({.min_r = 0.5}, {"full", "state_only", "fitted"}, "fitted"));
  EXPECT_EQ(gated_method({"full", "b", "a", "fitted"}, {"a", "b"}), "b");
  EXPECT_EQ(gated_method({"full", "fitted"}, {}), "fitted");

  RecordedRun within = run(0.1);
  within.window = 64;
  EXPECT_THROW(check_gates({.max_kl = 1}, written(within, "within"), "fitted", {}), ConfigError);
  RecordedRun unique = run(0.1);
  for (RecordedSegment& segment : unique.segments) segment.positions.copied.assign(20, false);
  EXPECT_THROW(check_gates({.min_recall = 0}, written(unique, "unique"), "fitted", {}), ConfigError);
  const RunSummary single = written(run(0.1, 1.2, 1), "single");
  EXPECT_THROW(check_gates({.baseline = "single"}, single, "fitted", single), ConfigError);
}

}  // namespace
}  // namespace focus::report
