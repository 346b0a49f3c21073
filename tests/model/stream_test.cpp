#include <gtest/gtest.h>

#include "focus/cache/known_output.h"
#include "focus/core/error.h"
#include "support/golden.h"
#include "support/tensors.h"

namespace focus::testing {
namespace {

using at::Tensor;

TEST(StreamTest, AForkedStreamLeavesItsOriginAlone) {
  at::NoGradGuard guard;
  const auto model = golden_model("tiny7b", at::kFloat);
  at::manual_seed(2);
  const Tensor tokens = at::randint(65, 85, {1, 64}, at::kLong),
               other = at::randint(65, 85, {1, 9}, at::kLong);
  cache::StreamState state;
  model->forward(tokens, &state);
  cache::StreamState fork = state.clone();
  const Tensor first = model->forward(other, &fork);
  model->forward(tokens, &fork);
  EXPECT_TRUE(at::equal(model->forward(other, &state), first));
}

TEST(StreamTest, FirstBlocksWhoseOutputIsKnownAreRunFromThereOn) {
  at::NoGradGuard guard;
  const auto model = golden_model("tiny7b", at::kFloat);
  at::manual_seed(6);
  const Tensor tokens = at::randint(65, 85, {1, 60}, at::kLong);
  const auto chunk = [&](int64_t begin) { return tokens.narrow(1, begin, 20); };
  const auto states = std::make_shared<cache::KnownOutput::States>();
  for (int64_t i = 0; i < 2; ++i) states->push_back(model->block(i).make_state(nullptr, 0));
  std::vector<Tensor> outputs;
  for (const int64_t begin : {0, 20}) {
    Tensor x = model->embed(chunk(begin));
    for (std::size_t i = 0; i < 2; ++i)
      x = model->block(static_cast<int64_t>(i)).forward(x, begin, (*states)[i].get(), nullptr);
    outputs.push_back(x);
  }
  cache::StreamState whole, rest;
  for (int64_t i = 0; i < model->num_blocks(); ++i)
    rest.layers.push_back(model->block(i).make_state(nullptr, 0));
  rest.layers[1] = std::make_unique<cache::KnownOutput>(at::cat(outputs, 1), states);
  for (const int64_t begin : {0, 20})
    EXPECT_TRUE(at::equal(model->forward(chunk(begin), &rest), model->forward(chunk(begin), &whole)));
  EXPECT_TRUE(rest.layers[0]->save().empty()) << "has run, though the output of the block behind it is known";
  // A fork, and then the stream itself, go on as if they had run all blocks.
  cache::StreamState fork = rest.clone();
  for (cache::StreamState* stream : {&fork, &rest}) {
    cache::StreamState expected = whole.clone();
    EXPECT_TRUE(at::equal(model->forward(chunk(40), stream), model->forward(chunk(40), &expected)));
    EXPECT_EQ(stream->layers[1]->num_bytes(), expected.layers[1]->num_bytes());
  }
  cache::StreamState across = rest.clone();
  across.layers[1] = std::make_unique<cache::KnownOutput>(at::cat(outputs, 1), states);
  across.position = 30;
  EXPECT_THROW(model->forward(chunk(40), &across), InternalError);
}

TEST(StreamTest, NoOutputSeesALaterBase) {
  at::NoGradGuard guard;
  const auto model = golden_model("tiny7b", at::kFloat);
  at::manual_seed(3);
  Tensor tokens = at::randint(65, 85, {1, 300}, at::kLong);
  const Tensor before = model->forward(tokens);
  tokens[0][200] = 67 + (tokens[0][200] == 67).item<int64_t>();
  const Tensor after = model->forward(tokens);
  EXPECT_TRUE(at::equal(after.narrow(1, 0, 200), before.narrow(1, 0, 200)));
  EXPECT_GT(max_difference(after.narrow(1, 200, 100), before.narrow(1, 200, 100)), 1e-2);
}

TEST(StreamTest, EveryParameterGetsAGradient) {
  const auto model = golden_model("tiny7b", at::kFloat);
  model->set_trainable(true);
  at::manual_seed(4);
  const Tensor tokens = at::randint(65, 85, {1, 200}, at::kLong);
  const Tensor logits = model->forward(tokens);
  at::nll_loss(at::log_softmax(logits[0].narrow(0, 0, 199), -1), tokens[0].narrow(0, 1, 199)).backward();
  for (const auto& item : model->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    EXPECT_GT(item.value().grad().abs().max().item<double>(), 0) << item.key();
  }
}

// Gradient through a carried state equals the gradient of one pass.
TEST(StreamTest, GradientThroughChunksEqualsOnePass) {
  const auto model = golden_model("tiny7b", at::kDouble);
  model->set_trainable(true);
  at::manual_seed(5);
  const Tensor tokens = at::randint(65, 85, {1, 90}, at::kLong);
  const Tensor weighting = at::randn({90, 512}, at::kDouble);
  const auto gradient = [&](int64_t chunk) {
    model->zero_grad();
    cache::StreamState state;
    std::vector<Tensor> parts;
    for (int64_t t = 0; t < 90; t += chunk)
      parts.push_back(model->forward(tokens.narrow(1, t, std::min(chunk, 90 - t)), &state));
    (at::cat(parts, 1)[0] * weighting).sum().backward();
    std::vector<Tensor> out;
    for (const auto& p : model->parameters()) out.push_back(p.grad().flatten().clone());
    return at::cat(out);
  };
  const Tensor whole = gradient(90);
  EXPECT_LT(relative_rms(gradient(7), whole), 1e-9);
}

}  // namespace
}  // namespace focus::testing
