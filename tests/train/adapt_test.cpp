// LoRA and unfrozen blocks beside the adapter: they start at the backbone, never touch it, and travel with
// the adapter's file.
#include "focus/model/adapt.h"

#include <set>

#include "adapter_training.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"

namespace focus::train {
namespace {

using at::Tensor;

model::AdaptConfig lora(std::vector<std::string> targets) {
  model::AdaptConfig config;
  config.lora.targets = std::move(targets);
  config.lora.rank = 3;
  return config;
}
void move(const model::AdaptedBackbone& adapted) {
  const at::NoGradGuard guard;
  at::manual_seed(5);
  for (const auto& [name, tensor] : adapted.trained)
    tensor.add_(at::randn(tensor.sizes(), tensor.options()) * 0.1);
}
Tensor logits(model::Backbone& backbone) {
  const at::NoGradGuard guard;
  return backbone.forward(testing::random_bases(2, 40, 6));
}

TEST(AdaptTest, StartsAtTheBackboneAndNeverTouchesIt) {
  std::vector<std::pair<std::shared_ptr<model::Backbone>, model::AdaptConfig>> cases = {
      {testing::small_model(at::kFloat),
       lora({"inner_mha_cls.Wqkv", "inner_mha_cls.out_proj", "projections", "mlp.l1"})},
      {testing::small_llama(at::kFloat), lora({"self_attn.q_proj", "mlp.down_proj"})},
      {testing::small_model(at::kFloat), {}}};
  cases[0].second.unfreeze_top = 1;
  cases[2].second.unfreeze_top = 2;
  for (const auto& [backbone, config] : cases) {
    const Tensor before = logits(*backbone);
    const auto adapted = model::adapt(backbone, config, 1);
    EXPECT_TRUE(at::equal(logits(*adapted.backbone), before));
    move(adapted);
    EXPECT_FALSE(at::allclose(logits(*adapted.backbone), before));
    EXPECT_TRUE(at::equal(logits(*backbone), before));
    // Only what is trained has memory of its own.
    std::set<std::string> trained;
    for (const auto& [name, tensor] : adapted.trained) trained.insert(name);
    const auto own = adapted.backbone->named_parameters(), original = backbone->named_parameters();
    for (const auto& item : own) {
      const auto* other = original.find(item.key());
      const bool shared = other != nullptr && item.value().const_data_ptr() == other->const_data_ptr();
      EXPECT_NE(shared, trained.contains("backbone." + item.key())) << item.key();
      EXPECT_EQ(item.value().requires_grad(), !shared) << item.key();
    }
  }
}

TEST(AdaptTest, NothingToAdaptIsTheBackboneItself) {
  const auto backbone = testing::small_model(at::kFloat);
  EXPECT_EQ(model::adapt(backbone, {}, 1).backbone, backbone);
}

// The paper's unit reads single parts of Wqkv: it must see what attention itself sees.
TEST(AdaptTest, PartsOfAProjectionHaveItsChange) {
  const auto adapted = model::adapt(testing::small_model(at::kDouble), lora({"inner_mha_cls.Wqkv"}), 1);
  move(adapted);
  const nn::Attention& attention = *adapted.backbone->block(2).attention();
  const Tensor u = at::randn({1, 7, 16}, at::kDouble);
  const auto all = attention.split(attention.Wqkv->forward(u));
  EXPECT_TRUE(
      at::allclose(attention.project_part(u, 1).unflatten(-1, {2, 8}).transpose(1, 2), all.k, 1e-6, 1e-7));
}

TEST(AdaptTest, WhatMakesNoSenseIsRefused) {
  const auto refused = [](model::AdaptConfig config) {
    EXPECT_THROW(model::adapt(testing::small_model(at::kFloat), config, 1), ConfigError);
  };
  refused(lora({"self_attn.q_proj"}));
  refused(lora({"mlp.l1", "mlp.l1"}));
  model::AdaptConfig config = lora({"mlp.l1"});
  config.lora.rank = 17;
  refused(config);
  config = lora({"inner_mha_cls.Wqkv"});
  config.lora.blocks = {3};  // has no attention
  refused(config);
  config.lora.blocks = {4};
  config.unfreeze_top = 1;
  refused(config);
  config = {};
  config.unfreeze_top = 6;
  refused(config);
  config = {};
  config.lora.alpha = 4;
  refused(config);
}

class AdaptTrainingTest : public AdapterTrainingTest {
 protected:
  TrainConfig adapting() const {
    TrainConfig c = config();
    c.adapt = lora({"inner_mha_cls.Wqkv", "mlp.l3"});
    c.adapt.unfreeze_top = 1;
    c.objective.skip_first_window = false;
    c.validation.every = 4;
    c.validation.allow_overlap = true;
    c.validation.sequences = 2;
    c.validation.length = 64;
    c.validation.data.sources = c.data.sources;
    return c;
  }
};

TEST_F(AdaptTrainingTest, LearnsWhileTheTeacherStays) {
  TrainConfig c = adapting();
  c.data.sources[0].regions = {"one:1-64"};
  c.validation.data.sources = c.data.sources;
  c.stages[0].steps = c.checkpoint_every = 40;
  c.validation.every = 20;
  c.validation.allow_overlap = true;
  run(c, "adapted");
  c.adapt = {};
  run(c, "plain");
  const auto full = figures("adapted", "validation_ce_full"), adapted = figures("adapted", "validation_kl"),
             plain = figures("plain", "validation_kl");
  EXPECT_EQ(full.front(), full.back());
  EXPECT_LT(adapted.back(), 0.9 * plain.back()) << "more is trained";
}

TEST_F(AdaptTrainingTest, ResumesBitEqualAndLoadsAsItWasTrained) {
  const TrainConfig c = adapting();
  expect_resumes_bit_equal(c);

  const auto original = weights::load_model(c.model_config, c.model_checkpoint, at::kFloat, "cpu");
  const auto loaded =
      compress::load_adapter(folder_.path() / "whole/adapter.safetensors", original.model, original.digest);
  EXPECT_EQ(loaded.adapted.config.unfreeze_top, 1);
  EXPECT_NE(loaded.adapted.backbone, original.model);
  // The last validation's figure, computed anew from the file.
  const data::SequenceSampler sampler(c.validation.data, static_cast<uint64_t>(c.seed) + 1);
  const at::NoGradGuard guard;
  double kl = 0, count = 0;
  for (uint64_t i = 0; i < 2; ++i) {
    const Batch batch = make_batch({sampler.sample(i, 64)}, original.model->vocabulary(), at::kCPU);
    const auto log_softmax = [&](const Tensor& hidden) {
      return at::log_softmax(original.model->unembed(hidden), -1).narrow(1, 0, 63);
    };
    const Tensor p =
        log_softmax(original.model->forward_embedded(original.model->embed(batch.tokens), nullptr));
    const Tensor q = log_softmax(
        compress::CompressedModel(loaded.adapted.backbone, loaded.adapter).parallel(batch.tokens).bases);
    kl += divergence(p, q).sum().item<double>();
    count += 63;
  }
  EXPECT_NEAR(kl / count, figures("whole", "validation_kl").back(), 1e-6);
}

TEST_F(AdaptTrainingTest, SettingsThatContradictAreRefused) {
  const auto refused = [&](const std::function<void(TrainConfig&)>& change) {
    TrainConfig c = adapting();
    c.validate();
    change(c);
    EXPECT_THROW(c.validate(), ConfigError);
  };
  refused([](TrainConfig& c) { c.objective.skip_first_window = true; });
  refused([](TrainConfig& c) { c.stages[0].kind = StageKind::match, c.objective = {}; });
}

}  // namespace
}  // namespace focus::train
