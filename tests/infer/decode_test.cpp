// Decoding: the bases are those that choosing and reading one by one gives, however the loop is cut.
#include "focus/infer/decode.h"

#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "support/small_model.h"

namespace focus::infer {
namespace {

using at::Tensor;

const std::vector<int64_t> kLetters = {'A', 'C', 'G', 'T'};

class DecoderTest : public ::testing::TestWithParam<std::string> {
 protected:
  StreamFactory streams() const {
    if (GetParam() == "full") return plain_stream(*model_);
    compress::MemoryConfig config;
    config.window.size = 32;
    config.focus.k = 8;
    if (GetParam() == "inline") {
      config.focus.stream = compress::Stream::inline_tokens;
      return compressed_stream(
          std::make_shared<compress::CompressedModel>(model_, testing::perturbed_adapter(*model_, config)),
          "inline");
    }
    return compressed_stream(compress::make_memory(GetParam(), model_, config), GetParam());
  }
  Decoder decoder(const DecodeOptions& options, int64_t batch = 2) const {
    auto stream = streams()(0);
    const Tensor hidden = stream->forward(testing::random_bases(batch, 41, 3));
    return {*model_, std::move(stream), hidden.narrow(1, 40, 1), options};
  }
  const std::shared_ptr<model::Backbone> model_ = testing::small_model(at::kFloat);
  const at::NoGradGuard no_grad_;
};

TEST_P(DecoderTest, TheLikeliestBasesAreThoseOfTheStreamReadBaseByBase) {
  Decoder decoder = this->decoder({.choice = {.temperature = 0}});
  const Tensor got = decoder.next(120);
  const auto stream = streams()(0);
  Tensor hidden = stream->forward(testing::random_bases(2, 41, 3)).narrow(1, 40, 1);
  for (int64_t i = 0; i < 120; ++i) {
    const Tensor token = model_->unembed(hidden).argmax(-1);
    ASSERT_TRUE(at::equal(got.narrow(1, i, 1), token)) << i;
    hidden = stream->forward(token);
  }
  EXPECT_EQ(decoder.stream().bases(), 161);
  EXPECT_EQ(decoder.stream().position(), stream->position());
  const Tensor next = testing::random_bases(2, 50, 4);
  EXPECT_TRUE(at::equal(decoder.stream().fork()->forward(next), stream->forward(next)));
  EXPECT_EQ(decoder.steps().plain, 120) << "the CPU records nothing";
}

TEST_P(DecoderTest, ASeedGivesTheSameBasesHoweverTheyAreAskedFor) {
  const DecodeOptions options = {.seed = 11, .allowed = kLetters, .block = 64};
  const Tensor whole = decoder(options).next(100);
  DecodeOptions small = options;
  small.block = 7;
  Decoder cut = decoder(small);
  const Tensor first = cut.next(33);
  // Who goes back to a snapshot finds what it was.
  const auto mark = cut.stream().snapshot();
  const auto fork = cut.stream().fork();
  EXPECT_TRUE(at::equal(at::cat({first, cut.next(0), cut.next(1), cut.next(66)}, 1), whole));
  EXPECT_TRUE(at::equal(mark->forward(first), fork->forward(first)));
  // A sequence draws the same numbers whatever stands beside it; all of them are letters.
  EXPECT_FALSE(at::equal(whole[0], whole[1]));
  EXPECT_TRUE(at::isin(whole, at::tensor(kLetters)).all().item<bool>());
  DecodeOptions other = options;
  other.seed = 12;
  EXPECT_FALSE(at::equal(decoder(other).next(100), whole));
}

TEST_P(DecoderTest, StopsWhereItIsAskedTo) {
  Decoder decoder = this->decoder({.allowed = kLetters, .block = 10});
  int64_t seen = 0;
  const int64_t added = decoder.run(1000, [&](const Tensor& tokens) {
    EXPECT_EQ(tokens.sizes(), (at::IntArrayRef{2, 10}));
    seen += tokens.size(1);
    return seen < 30;
  });
  EXPECT_EQ(added, 30);
  EXPECT_EQ(decoder.stream().bases(), 71);
}

INSTANTIATE_TEST_SUITE_P(Memories, DecoderTest,
                         ::testing::Values("full", "fitted", "state_only", "inline", "kv_quant_int8"));

TEST(DecoderOptionsTest, WhatCannotBeIsRefused) {
  const auto model = testing::small_model(at::kFloat);
  const auto make = [&](const Tensor& hidden, const DecodeOptions& options) {
    return Decoder(*model, plain_stream(*model)(0), hidden, options);
  };
  const Tensor hidden = at::zeros({1, 1, 16});
  EXPECT_THROW(make(at::zeros({1, 2, 16}), {}), ShapeError);
  EXPECT_THROW(make(hidden, {.block = 0}), ConfigError);
  EXPECT_THROW(make(hidden, {.allowed = {65, 128}}), ConfigError);
  EXPECT_THROW(make(hidden, {.choice = {.top_p = 0}}).next(1), ConfigError);
}

}  // namespace
}  // namespace focus::infer
