#include "focus/model/initialise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "focus/core/file.h"

namespace focus::model {
namespace {

using at::Tensor;

/// A random sequence of 256 bases whose bases [20, 110) are written again at 150.
Tensor with_copy() {
  at::manual_seed(1);
  const Tensor letters = at::tensor({int64_t{'A'}, int64_t{'C'}, int64_t{'G'}, int64_t{'T'}});
  Tensor tokens = letters.index({at::randint(0, 4, {1, 256}, at::kLong)});
  tokens.narrow(1, 150, 90).copy_(tokens.narrow(1, 20, 90).clone());
  return tokens;
}

/// Of each attention block, the mean attention that bases inside the copy of with_copy() pay to the base that
/// followed their source.
std::vector<double> attention_on_source(const StripedHyena& model, const Tensor& tokens) {
  std::vector<double> out;
  Tensor x = model.embed(tokens);
  for (const auto& block : model.blocks->items) {
    if (block->kind() == BlockKind::attention) {
      const auto p = block->inner_mha_cls->project(block->pre_norm->forward(x), at::arange(x.size(1)));
      const Tensor scores =
          at::matmul(p.q, p.k.transpose(-1, -2)) / std::sqrt(static_cast<double>(p.q.size(-1)));
      const Tensor future = at::ones({x.size(1), x.size(1)}, at::kBool).triu_(1);
      const Tensor weights = at::softmax(scores.masked_fill(future, -1e30), -1);
      double total = 0;
      constexpr int64_t kSkip = 16,
                        kLast = 88;  // a match needs some context; the last base has none after it
      for (int64_t i = kSkip; i <= kLast; ++i)
        total += weights[0].select(1, 150 + i).select(1, 21 + i).max().item<double>();
      out.push_back(total / static_cast<double>(kLast + 1 - kSkip));
    }
    x = block->forward(x, 0, nullptr, nullptr);
  }
  return out;
}

TEST(InitialiseTest, DelayPairLooksAtTheBaseAfterTheMatchingContext) {
  at::NoGradGuard guard;
  StripedHyena model(read_model_config(std::string(FOCUS_SOURCE_DIR) + "/configs/models/focus-small.yml"));
  const Tensor tokens = with_copy();
  InitConfig config;
  initialise(model, config);
  const double paired = attention_on_source(model, tokens)[0];
  config.delay_pair = false;
  initialise(model, config);
  const double plain = attention_on_source(model, tokens)[0];
  EXPECT_GT(paired, 0.2);
  EXPECT_LT(plain, 0.05);
  RecordProperty("paired", std::to_string(paired));
}

TEST(InitialiseTest, DelayPairReachesEveryAttentionBlockOfADeepModel) {
  at::NoGradGuard guard;
  StripedHyena model(read_model_config(std::string(FOCUS_SOURCE_DIR) + "/configs/models/focus-deep.yml"));
  InitConfig config;
  config.output_gain = config.attention_gain = 0.4;
  config.delay_pair_output = 1.6;
  initialise(model, config);
  const std::vector<double> found = attention_on_source(model, with_copy());
  ASSERT_EQ(found.size(), 3U);
  for (const double share : found) EXPECT_GT(share, 0.15);
}

TEST(InitialiseTest, SameSeedSameWeights) {
  StripedHyena a(read_model_config(std::string(FOCUS_SOURCE_DIR) + "/configs/models/focus-small.yml")),
      b(a.config());
  InitConfig config;
  initialise(a, config);
  initialise(b, config);
  const auto pa = a.parameters(), pb = b.parameters();
  for (std::size_t i = 0; i < pa.size(); ++i) EXPECT_TRUE(at::equal(pa[i], pb[i]));
  config.seed = 1;
  initialise(b, config);
  EXPECT_FALSE(at::equal(a.embedding_layer->weight, b.embedding_layer->weight));
}

}  // namespace
}  // namespace focus::model
