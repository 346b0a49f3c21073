#include "needles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "focus/core/random.h"
#include "workspace.h"

namespace focus::eval {
namespace {

using at::Tensor;

std::string letters(int64_t length, uint64_t seed) {
  Random random(seed, 0);
  std::string text;
  for (int64_t i = 0; i < length; ++i) text += "ACGT"[random.uniform_integer(4)];
  return text;
}

data::SampledSegment segment(int64_t length) { return {"chr", 1000, letters(length, 3), {}}; }

int64_t differences(const std::string& a, const std::string& b) {
  int64_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}

const NeedleConfig kNine{.size = 24, .questions = 9, .distractors = {4, 2, 1}};

TEST(Needles, LieWhereTheDepthsSay) {
  data::SampledSegment s = segment(7000);
  const std::string before = s.sequence;
  const auto needles = make_needles(kNine, 1, s);
  ASSERT_EQ(needles.size(), 36U);
  hide(needles, s);
  ASSERT_EQ(s.sequence.size(), before.size());
  for (std::size_t q = 0; q < 9; ++q) {
    EXPECT_NEAR(static_cast<double>(needles[q].begin), 0.1 * static_cast<double>(q + 1) * (7000 - 48), 1.0);
    EXPECT_NEAR(needle_depths(kNine)[q], 0.1 * static_cast<double>(q + 1), 1e-12);
  }
  std::string expected = before;
  for (const Needle& n : needles) expected.replace(static_cast<std::size_t>(n.begin), 48, n.key + n.value);
  EXPECT_EQ(s.sequence, expected);
  EXPECT_EQ(needle_depths({.size = 24, .questions = 1}), std::vector<double>{0.5});
}

TEST(Needles, NearDuplicatesDifferInTheKeyAsFarAsIsAsked) {
  const auto needles = make_needles(kNine, 1, segment(7000));
  std::set<std::string> values;
  for (std::size_t q = 0; q < 9; ++q) {
    for (std::size_t d = 0; d < 3; ++d)
      EXPECT_EQ(differences(needles[q].key, needles[9 + 3 * q + d].key), kNine.distractors[d]);
  }
  std::vector<int64_t> begins;
  for (const Needle& n : needles) {
    values.insert(n.value);
    begins.push_back(n.begin);
  }
  EXPECT_EQ(values.size(), needles.size());
  std::sort(begins.begin(), begins.end());
  for (std::size_t i = 1; i < begins.size(); ++i) EXPECT_GE(begins[i] - begins[i - 1], 48);
  EXPECT_GE(begins.front(), 0);
  EXPECT_LE(begins.back() + 48, 7000);
}

TEST(Needles, AreTheSameForTheSameSegmentAndSeed) {
  const auto keys = [](uint64_t seed, const data::SampledSegment& s) {
    std::string all;
    for (const Needle& n : make_needles(kNine, seed, s)) all += n.key + n.value;
    return all;
  };
  data::SampledSegment other = segment(7000);
  other.begin = 1001;
  EXPECT_EQ(keys(1, segment(7000)), keys(1, segment(7000)));
  EXPECT_NE(keys(1, segment(7000)), keys(2, segment(7000)));
  EXPECT_NE(keys(1, segment(7000)), keys(1, other));
}

/// Greedy over the four bases by calls of the whole text, memory and all: no stream, no fork.
std::string answer_by_the_whole_text(compress::CompressedModel& model, const std::string& text,
                                     const Needle& n) {
  const auto& vocabulary = model.backbone().vocabulary();
  std::string read = text + n.key, answer;
  while (answer.size() < n.value.size()) {
    const std::vector<uint8_t> bytes(read.begin(), read.end());
    const Tensor tokens = at::tensor(vocabulary.encode(bytes, "text"), at::kLong).unsqueeze(0);
    const Tensor logits = model.backbone().unembed(model.parallel(tokens).bases)[0][-1];
    std::size_t best = 0;
    for (std::size_t b = 1; b < 4; ++b) {
      if (logits[vocabulary.bases[b]].item<float>() > logits[vocabulary.bases[best]].item<float>()) best = b;
    }
    read += "ACGT"[best];
    answer += "ACGT"[best];
  }
  return answer;
}

TEST(Needles, AreAskedForBehindTheSegmentEachByItself) {
  const Workspace space;
  testing::write_small_model(space.path());
  FidelityConfig c = space.config(letters(3000, 4), 620);  // a window closes within the answers
  c.needles = {.size = 12, .questions = 3, .distractors = {1}};
  c.methods = {"noise_floor", "state_only", "fitted"};
  const report::FidelityResult result = run_fidelity(c, "cpu", at::kFloat);
  ASSERT_EQ(result.needle_depths.size(), 3U);
  const auto loaded = weights::load_model(c.model_config, c.model_checkpoint, at::kFloat, "cpu");
  const at::NoGradGuard no_grad;
  for (const report::MethodResult& m : result.methods) {
    ASSERT_EQ(m.answers.size(), 6U);
    for (const std::string& answer : m.answers) EXPECT_EQ(answer.size(), 12U);
    if (m.name != "full" && m.name != "fitted") continue;  // the others have no parallel pass
    auto model = compress::make_memory(m.name, loaded.model, c.memory);
    std::size_t i = 0;
    for (const report::Segment& s : result.segments) {
      data::SampledSegment read{
          s.name, s.begin, letters(3000, 4).substr(static_cast<std::size_t>(s.begin), 620), {}};
      const auto needles = make_needles(c.needles, static_cast<uint64_t>(c.seed), read);
      hide(needles, read);
      for (std::size_t q = 0; q < 3; ++q, ++i) {
        EXPECT_EQ(result.questions[i].key, needles[q].key);
        EXPECT_EQ(result.questions[i].value, needles[q].value);
        EXPECT_EQ(m.answers[i], answer_by_the_whole_text(*model, read.sequence, needles[q]))
            << m.name << ' ' << i;
      }
    }
  }
  EXPECT_EQ(result.methods[0].answers, result.methods[1].answers);  // full memory in other chunks
}

TEST(Needles, RefuseWhatCannotBeAsked) {
  FidelityConfig c;
  c.model_config = "m.yml";
  c.model_checkpoint = "m.pt";
  c.fasta = "x.fa";
  c.needles = kNine;
  c.length = 6912;  // four times 36 needles
  EXPECT_NO_THROW(c.validate());
  c.length = 6911;
  EXPECT_THROW(c.validate(), ConfigError);
  c.length = 8192;
  c.needles.distractors = {25};
  EXPECT_THROW(c.validate(), ConfigError);
  c.needles.distractors = {};
  c.planted.size = 100;
  EXPECT_THROW(c.validate(), ConfigError);
  c.planted = {};
  for (const char* name : {"oracle", "adaptive_entropy"}) {
    c.methods = {"fitted", name};
    EXPECT_THROW(c.validate(), ConfigError) << name;
  }
  c.methods = {};
  const auto all = fidelity_methods(c);
  EXPECT_EQ(std::count(all.begin(), all.end(), "adaptive_entropy"), 0);
  c.needles = {};
  c.needles.questions = 3;
  EXPECT_THROW(c.validate(), ConfigError);  // has no effect
}

}  // namespace
}  // namespace focus::eval
