#include "planted.h"

#include <gtest/gtest.h>

#include <string>

#include "fidelity_run.h"
#include "focus/core/error.h"
#include "focus/data/letters.h"
#include "position_classes.h"
#include "workspace.h"

namespace focus::eval {
namespace {

std::string letters(int64_t length, unsigned seed) {
  std::string text;
  for (int64_t i = 0; i < length; ++i) text += "ACGT"[(seed = seed * 1664525U + 1013904223U) >> 30];
  return text;
}

data::SampledSegment segment(int64_t length) { return {"chr", 1000, letters(length, 3), {}}; }

int64_t count(const std::vector<bool>& bits) { return std::count(bits.begin(), bits.end(), true); }

TEST(Planted, AnExactCopyStandsAtTheEnd) {
  data::SampledSegment s = segment(1000);
  const std::string before = s.sequence;
  plant({.size = 100, .distance = 600}, 1, s);
  EXPECT_EQ(s.sequence, before.substr(0, 900) + before.substr(300, 100));
  EXPECT_EQ(count(s.planted), 68);  // but for the first 32
  EXPECT_TRUE(s.planted[932]);
  EXPECT_FALSE(s.planted[931]);
}

TEST(Planted, TheOppositeStrandIsTheReverseComplement) {
  data::SampledSegment s = segment(1000);
  const std::string before = s.sequence;
  plant({.size = 100, .distance = 600, .reverse_complement = true}, 1, s);
  EXPECT_EQ(s.sequence.substr(900), data::reverse_complement(before.substr(300, 100)));
}

TEST(Planted, SubstitutesTheShareThatIsAsked) {
  data::SampledSegment s = segment(30000);
  const std::string before = s.sequence;
  plant({.size = 10000, .distance = 15000, .substitutions = 0.15}, 1, s);
  int64_t changed = 0;
  for (std::size_t i = 0; i < 10000; ++i) {
    const bool same = s.sequence[20000 + i] == before[5000 + i];
    changed += same ? 0 : 1;
    if (i >= 32) {
      EXPECT_EQ(s.planted[20000 + i], same) << i;
    }
  }
  EXPECT_NEAR(static_cast<double>(changed), 1500, 4 * 36);
  data::SampledSegment again = segment(30000), other = segment(30000);
  plant({.size = 10000, .distance = 15000, .substitutions = 0.15}, 1, again);
  plant({.size = 10000, .distance = 15000, .substitutions = 0.15}, 2, other);
  EXPECT_EQ(again.sequence, s.sequence);
  EXPECT_NE(other.sequence, s.sequence);
}

TEST(Planted, IndelsShiftTheSource) {
  data::SampledSegment s = segment(30000);
  const std::string before = s.sequence;
  plant({.size = 10000, .distance = 12000, .indels = 0.02}, 1, s);
  // Words of the copy are found in the source at shifts that change: as many as indels leave.
  int64_t found = 0, shifts = 0, last = -1;
  for (std::size_t i = 0; i + 20 <= 10000; i += 20) {
    const std::size_t at = before.find(s.sequence.substr(20000 + i, 20), 8000);
    if (at == std::string::npos || at >= 20000) continue;
    ++found;
    const auto shift = static_cast<int64_t>(at) - static_cast<int64_t>(i);
    shifts += shift != last ? 1 : 0;
    last = shift;
  }
  EXPECT_GT(found, 250);  // of 500, .98^20 of which hold none
  EXPECT_GT(shifts, 50);
}

TEST(Planted, RefusesWhatDoesNotFit) {
  FidelityConfig c;
  c.model_config = "m.yml";
  c.model_checkpoint = "m.pt";
  c.fasta = "x.fa";
  c.length = 1000;
  c.planted = {.size = 100, .distance = 900};
  EXPECT_NO_THROW(c.validate());
  c.planted.distance = 901;
  EXPECT_THROW(c.validate(), ConfigError);
  c.planted.distance = 99;
  EXPECT_THROW(c.validate(), ConfigError);
  data::SampledSegment s = segment(100);
  EXPECT_THROW(plant({.size = 60, .distance = 60}, 1, s), InternalError);
}

TEST(PositionClasses, FollowTheLetters) {
  std::string sequence =
      letters(300, 9) + std::string(150, 'A') + letters(100, 5) + "gcgcgcgc" + letters(200, 11);
  sequence.replace(700, 50, sequence.substr(10, 50));
  const auto classes = position_classes(sequence);
  const auto at = [&](report::Grouping grouping, std::size_t base) {
    return classes[static_cast<std::size_t>(grouping)][base - 1];
  };
  EXPECT_EQ(classes[0].size(), sequence.size() - 1);
  EXPECT_EQ(at(report::Grouping::repeat, 551), 1);
  EXPECT_EQ(at(report::Grouping::repeat, 549), 0);
  EXPECT_EQ(at(report::Grouping::gc, 449), 0);  // 100 A before
  EXPECT_EQ(at(report::Grouping::last_copy, 740), report::distance_class(690));
  EXPECT_EQ(at(report::Grouping::last_copy, 400), report::distance_class(1));
  EXPECT_EQ(at(report::Grouping::last_copy, 200), 0);
}

TEST(Planted, ARunMeasuresRecallOnTheCopies) {
  const Workspace space;
  testing::write_small_model(space.path());
  FidelityConfig c = space.config(letters(3000, 4), 400);
  c.planted = {.size = 80, .distance = 200};
  c.methods = {"state_only", "fitted"};
  const report::FidelityResult result = run_fidelity(c, "cpu", at::kFloat);
  EXPECT_EQ(result.subject, "fitted");
  ASSERT_EQ(result.segments.size(), 2U);
  const data::SegmentSample sample = draw_segments(c, c.segments);
  for (std::size_t s = 0; s < 2; ++s) {
    EXPECT_EQ(result.segments[s].copied, 48);
    report::Segment described;
    const auto copied = describe_segment(sample.segments[s], 64, described).copied;
    EXPECT_EQ(copied.size(), 399U);
    EXPECT_TRUE(copied[398]);   // predicts the last base
    EXPECT_FALSE(copied[350]);  // base 351, the copy's 32nd
    EXPECT_TRUE(copied[351]);
    // Recall stands on these.
    EXPECT_EQ(result.methods[1].segments[s].copied.count, 48);
  }
}

}  // namespace
}  // namespace focus::eval
