// Base tables are fitted before the first step, and may then be trained like any other parameter.
#include <functional>

#include "adapter_training.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"

namespace focus::train {
namespace {

using at::Tensor;

class TablesTrainingTest : public AdapterTrainingTest {
 protected:
  TrainConfig tables() const {
    TrainConfig c = config();
    c.memory.focus.rank = compress::FocusConfig{}.rank;
    c.memory.kind = compress::MemoryKind::tables;
    c.memory.tables.word = 2;
    c.memory.tables.offsets = {0, 1, 3};
    c.memory.tables.fit_sequences = 8;
    c.memory.tables.fit_length = 200;
    c.optimizer.lr = 1e-3;
    return c;
  }
  /// No step of training, and none of the settings that only steps read.
  TrainConfig fit_only() const {
    const TrainConfig fresh;
    TrainConfig c = tables();
    c.stages.clear();
    c.optimizer = fresh.optimizer;
    c.schedule = fresh.schedule;
    c.accumulation = fresh.accumulation;
    return c;
  }
  double divergence(const TrainConfig& c, const std::string& name) const {
    const auto task = make_task(c, at::kCPU);
    const auto backbone = weights::load_model(c.model_config, c.model_checkpoint, at::kFloat, "cpu");
    const auto loaded = compress::load_adapter(folder_.path() / name / "adapter.safetensors", backbone.model,
                                               backbone.digest);
    const compress::CompressedModel model(loaded.adapted.backbone, loaded.adapter);
    const at::NoGradGuard guard;
    const Tensor text = testing::random_bases(2, 400, 77);
    const Tensor full = at::log_softmax(backbone.model->forward(text), -1);
    const Tensor own = at::log_softmax(backbone.model->unembed(model.parallel(text).bases), -1);
    return (full.exp() * (full - own)).sum(-1).mean().item<double>();
  }
};

TEST_F(TablesTrainingTest, NoStageGivesTheClosedForm) {
  const TrainConfig c = fit_only();
  c.validate();
  EXPECT_EQ(run(c, "fit").steps, 0);
  run(c, "again");
  EXPECT_EQ(adapter("fit"), adapter("again"));
  // Other sequences, other tables; no tables at all, a worse memory.
  TrainConfig other = c;
  other.seed = 43;
  run(other, "other");
  EXPECT_NE(adapter("fit"), adapter("other"));
  TrainConfig stiff = c;
  stiff.memory.tables.ridge = 1e9;  // only the mean key is left
  run(stiff, "stiff");
  EXPECT_LT(divergence(c, "fit"), divergence(c, "stiff"));
}

TEST_F(TablesTrainingTest, StepsStartFromTheFitAndResumeBitEqual) {
  const TrainConfig c = tables();
  expect_resumes_bit_equal(c);
  run(fit_only(), "fit");
  EXPECT_NE(adapter("whole"), adapter("fit"));
  EXPECT_LT(divergence(c, "whole"), 1.05 * divergence(c, "fit"));
}

TEST_F(TablesTrainingTest, AFitWithoutStepsIsValidatedOnce) {
  TrainConfig c = fit_only();
  c.validation.every = 1;
  c.validation.sequences = 2;
  c.validation.length = 64;
  c.validation.data = c.data;
  c.validation.allow_overlap = true;
  c.validate();
  run(c, "fit");
  EXPECT_EQ(figures("fit", "step"), std::vector<double>{0});
  const auto kl = figures("fit", "validation_kl");
  ASSERT_EQ(kl.size(), 1U);
  EXPECT_GT(kl[0], 0);
}

TEST_F(TablesTrainingTest, SettingsThatOnlyStepsReadAreRefusedWithoutStages) {
  const auto refusal = [&](const std::function<void(TrainConfig&)>& change) -> std::string {
    TrainConfig c = fit_only();
    change(c);
    try {
      c.validate();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal([](TrainConfig&) {}), "");
  const std::vector<std::pair<std::string, std::function<void(TrainConfig&)>>> changes = {
      {"optimizer", [](TrainConfig& c) { c.optimizer.lr = 1; }},
      {"schedule", [](TrainConfig& c) { c.schedule.warmup_steps = 1; }},
      {"objective", [](TrainConfig& c) { c.objective.ce = 1; }},
      {"accumulation", [](TrainConfig& c) { c.accumulation = 1; }},
      {"execution", [](TrainConfig& c) { c.execution = Execution::sequential; }},
      {"recompute", [](TrainConfig& c) { c.recompute = true; }},
      {"non_finite", [](TrainConfig& c) { c.non_finite = NonFinite::skip; }}};
  for (const auto& [name, change] : changes)
    EXPECT_TRUE(refusal(change).starts_with(name) &&
                refusal(change).find("has no effect unless stages") != std::string::npos)
        << refusal(change);
}

TEST_F(TablesTrainingTest, StagesWithoutMeaningAreRefused) {
  TrainConfig c = config();
  c.stages.clear();
  EXPECT_THROW(c.validate(), ConfigError);
  c = tables();
  c.random.k = {5, 10};
  EXPECT_THROW(c.validate(), ConfigError);
  c = tables();
  c.stages[0].kind = StageKind::match;
  EXPECT_THROW(c.validate(), ConfigError);
}

}  // namespace
}  // namespace focus::train
