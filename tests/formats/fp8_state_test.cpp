// FP8 scales out of Transformer Engine's extra state.
#include "focus/formats/fp8_state.h"

#include <gtest/gtest.h>

#include <limits>

#include "archive_builder.h"

namespace focus::formats::testing {
namespace {

const std::string kScales = raw_bytes<float>({16, 0.5F, 448});
const std::string kHistory = raw_bytes<float>({1, 2, 3, 4, 5, 6});

std::string scale(std::int64_t count = 3, const std::string& type = "FloatStorage") {
  return text("scale_fwd") + tensor(storage(type, "0", count), 0, {count}, {1});
}
std::string history(const std::vector<std::int64_t>& shape = {2, 3},
                    const std::vector<std::int64_t>& strides = {3, 1}) {
  return text("amax_history_fwd") + tensor(storage("FloatStorage", "1", 6), 0, shape, strides);
}
std::string state_of(const std::string& items) {
  return archive_of(pickle(dict(items)), {kScales, kHistory});
}

struct Outcome {
  std::optional<Fp8State> state;
  std::string why_not;
};
Outcome read(const std::string& content) {
  Outcome outcome;
  outcome.state = read_fp8_state(as_bytes(content), "entry 'e'", outcome.why_not);
  return outcome;
}
std::string refused(const std::string& content) {
  return refusal_by<WeightsError>([&] { read(content); });
}

TEST(Fp8StateTest, ScalesAndHistoryAreRead) {
  const Outcome both = read(state_of(scale() + history()));
  ASSERT_TRUE(both.state.has_value()) << both.why_not;
  EXPECT_EQ(both.state->scale_fwd, (std::vector<float>{16, 0.5F, 448}));
  EXPECT_EQ(both.state->amax_history_fwd, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(both.state->amax_history_length, 2U);
  const Outcome transposed = read(state_of(scale() + history({2, 3}, {1, 2})));
  EXPECT_EQ(transposed.state->amax_history_fwd, (std::vector<float>{1, 3, 5, 2, 4, 6}));
  for (const std::string& none : {std::string(), text("amax_history_fwd") + "N"}) {
    const Outcome alone = read(state_of(scale() + none));
    EXPECT_TRUE(alone.state->amax_history_fwd.empty());
    EXPECT_EQ(alone.state->amax_history_length, 0U);
  }
}

TEST(Fp8StateTest, GoldenEntriesHoldScalesOrNone) {
  const auto file = TensorFile::open(golden_checkpoint());
  int with = 0, without = 0;
  for (const OpaqueEntry& entry : file->opaque()) {
    std::string why_not;
    const auto state = read_fp8_state(entry.content, entry.name, why_not);
    EXPECT_EQ(state.has_value(), entry.name.ends_with("projections._extra_state")) << entry.name;
    if (state) {
      EXPECT_EQ(state->scale_fwd, (std::vector<float>{1, 1, 1}));
      EXPECT_EQ(state->amax_history_length, 16U);
      ++with;
    } else {
      EXPECT_EQ(why_not, "the entry holds None");
      ++without;
    }
  }
  EXPECT_EQ(with, 6);
  EXPECT_EQ(without, 4);
}

TEST(Fp8StateTest, WithoutScalesTheReasonIsGiven) {
  const auto reason = [](const std::string& content) {
    const Outcome outcome = read(content);
    EXPECT_FALSE(outcome.state.has_value());
    return outcome.why_not;
  };
  EXPECT_EQ(reason(""), "the entry is empty");
  EXPECT_EQ(reason(archive_of(pickle("N"))), "the entry holds None");
  EXPECT_EQ(reason(archive_of(pickle(dict("")))), "the entry has no scale_fwd among its 0 values");
  EXPECT_EQ(reason(state_of(history() + text("recipe") + "N")),
            "the entry has no scale_fwd among its 2 values");
  EXPECT_EQ(reason(state_of(text("scale_fwd") + "N")), "the entry has no scale_fwd among its 1 values");
}

TEST(Fp8StateTest, OtherObjectsAreAcceptedAndNothingHappens) {
  const std::string recipe =
      global("transformer_engine.common.recipe", "DelayedScaling") + ")\x81" +
      dict(text("margin") + integer(0) + text("fp8_format") +
           global("transformer_engine.common.recipe", "Format") +
           global("transformer_engine.common.recipe", "_FormatHelper") + text("max_fwd") + "\x85R\x85R") +
      "b";
  const std::string odd =
      text("recipe") + recipe + text("dtype") + global("torch", "bfloat16") + text("device") +
      global("torch", "device") + text("cuda") + "\x85R" + text("set") + "\x8f(K\1K\2\x90" + text("frozen") +
      "(K\1\x91" + text("keywords") + global("some.module", "Class") + ")}\x92" + text("huge") + "\x8b" +
      little<std::uint32_t>(12) + std::string(12, '\1') + text("large") + "\x8a\x0a" + std::string(10, '\1') +
      text("complex") + tensor(storage("ComplexFloatStorage", "1", 3), 0, {3}, {1}) + text("list") +
      global("a", "b") + ")\x81(K\1K\2e" + text("dict") + global("a", "b") + ")\x81(" + text("k") + "K\2u" +
      text("popped") + "NN0";
  const std::string dangerous =
      text("system") + global("os", "system") + text("touch pwned-by-extra-state") + "\x85R";
  const Outcome outcome = read(state_of(odd + dangerous + scale()));
  ASSERT_TRUE(outcome.state.has_value()) << outcome.why_not;
  EXPECT_EQ(outcome.state->scale_fwd.size(), 3U);
  EXPECT_FALSE(std::filesystem::exists("pwned-by-extra-state"));
  // The same in a checkpoint itself stays an error.
  EXPECT_MENTIONS(refusal_of(state_of(odd + scale())), "transformer_engine.common.recipe.DelayedScaling");
}

TEST(Fp8StateTest, ScalesMustBeFiniteAndPositive) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {0.0F, -1.0F, kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    const std::string content = archive_of(pickle(dict(scale())), {raw_bytes<float>({1, bad, 1})});
    EXPECT_MENTIONS(refused(content), "entry 'e': scale_fwd[1] is ");
  }
}

TEST(Fp8StateTest, WhatIsNoSuchStateIsRefused) {
  EXPECT_MENTIONS(refused(std::string("\x80\4N.", 4)), "expected a torch.save zip");
  EXPECT_MENTIONS(refused("PK"), "too short for a zip");
  EXPECT_MENTIONS(refused(state_of(scale()).substr(0, 200)), "no zip directory at its end");
  EXPECT_MENTIONS(refused(archive_of(pickle("]"))), "it holds a list, expected a dict or None");
  EXPECT_MENTIONS(refused(state_of(scale() + scale())), "scale_fwd twice");
  EXPECT_MENTIONS(refused(state_of(text("scale_fwd") + "K\1")),
                  "scale_fwd is a int, expected a tensor of F32");
  EXPECT_MENTIONS(refused(state_of(scale(6, "HalfStorage"))), "scale_fwd is a F16 tensor");
  EXPECT_MENTIONS(refused(state_of(scale(2))), "storage '0' has 12 bytes, expected 2 elements");
  EXPECT_MENTIONS(refused(archive_of(pickle(dict(scale(0))), {""})), "scale_fwd has the shape [0]");
  EXPECT_MENTIONS(
      refused(state_of(text("scale_fwd") + tensor(storage("FloatStorage", "0", 3), 0, {1, 3}, {3, 1}))),
      "the shape [1, 3]");
  EXPECT_MENTIONS(refused(state_of(scale() + history({3, 2}, {2, 1}))),
                  "amax_history_fwd has the shape [3, 2], expected [steps, 3]");
  EXPECT_MENTIONS(refused(state_of(scale() + history({6}, {1}))), "amax_history_fwd has the shape [6]");
  EXPECT_MENTIONS(refused(state_of(text("scale_fwd") +
                                   tensor(storage("FloatStorage", "0", 3), 0, {std::int64_t{1} << 40}, {0}))),
                  "more than an entry of");
  EXPECT_MENTIONS(refused(state_of(text("scale_fwd") + global("a", "b") + ")R")), "scale_fwd is a object");
  EXPECT_MENTIONS(refused(zip_of({{"a/data.pkl", pickle("N"), 8}})), "is compressed");
}

}  // namespace
}  // namespace focus::formats::testing
