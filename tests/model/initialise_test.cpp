#include "focus/model/initialise.h"

#include <gtest/gtest.h>

#include "focus/core/file.h"

namespace focus::model {
namespace {

using at::Tensor;

/// Mean attention that bases inside a copy pay, at the model's first attention block, to the base that
/// followed their source.
double attention_on_source(const StripedHyena& model, const Tensor& tokens, int64_t source, int64_t copy,
                           int64_t length) {
  Tensor x = model.embed(tokens);
  for (const auto& block : model.blocks->items) {
    if (block->kind() != BlockKind::attention) {
      x = block->forward(x, 0, nullptr, nullptr);
      continue;
    }
    const auto p = block->inner_mha_cls->project(block->pre_norm->forward(x), at::arange(x.size(1)));
    const Tensor scores =
        at::matmul(p.q, p.k.transpose(-1, -2)) / std::sqrt(static_cast<double>(p.q.size(-1)));
    const Tensor future = at::ones({x.size(1), x.size(1)}, at::kBool).triu_(1);
    const Tensor weights = at::softmax(scores.masked_fill(future, -1e30), -1);
    double total = 0;
    constexpr int64_t kSkip = 16;  // a match needs some context
    for (int64_t i = kSkip; i < length - 1; ++i)
      total += weights[0].select(1, copy + i).select(1, source + i + 1).max().item<double>();
    return total / static_cast<double>(length - 1 - kSkip);
  }
  return 0;
}

TEST(InitialiseTest, DelayPairLooksAtTheBaseAfterTheMatchingContext) {
  at::NoGradGuard guard;
  StripedHyena model(read_model_config(std::string(FOCUS_SOURCE_DIR) + "/configs/models/focus-small.yml"));
  at::manual_seed(1);
  const Tensor letters = at::tensor({int64_t{'A'}, int64_t{'C'}, int64_t{'G'}, int64_t{'T'}});
  Tensor tokens = letters.index({at::randint(0, 4, {1, 256}, at::kLong)});
  tokens.narrow(1, 150, 90).copy_(tokens.narrow(1, 20, 90).clone());
  InitConfig config;
  initialise(model, config);
  const double paired = attention_on_source(model, tokens, 20, 150, 90);
  config.delay_pair = false;
  initialise(model, config);
  const double plain = attention_on_source(model, tokens, 20, 150, 90);
  EXPECT_GT(paired, 0.2);
  EXPECT_LT(plain, 0.05);
  RecordProperty("paired", std::to_string(paired));
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
