// Base tables are fitted before the first step, and may then be trained like any other parameter.
#include "adapter_training.h"
#include "focus/compress/unit.h"
#include "focus/core/error.h"

namespace focus::train {
namespace {

using at::Tensor;

class TablesTrainingTest : public AdapterTrainingTest {
 protected:
  TrainConfig tables() const {
    TrainConfig c = config();
    c.memory.focus.rank = compress::FocusConfig{}.rank;
    c.memory.focus.unit = compress::UnitKind::tables;
    c.memory.focus.tables.word = 2;
    c.memory.focus.tables.offsets = {0, 1, 3};
    c.memory.focus.tables.fit_sequences = 8;
    c.memory.focus.tables.fit_length = 200;
    c.optimizer.lr = 1e-3;
    return c;
  }
  double divergence(const TrainConfig& c, const std::string& name) const {
    const auto task = make_task(c, at::kCPU);
    const auto backbone = weights::load_model(c.model_config, c.model_checkpoint, at::kFloat, "cpu");
    const auto loaded = compress::load_adapter(folder_.path() / name / "adapter.safetensors", backbone.model, backbone.digest);
    const compress::CompressedModel model(loaded.adapted.backbone, loaded.adapter);
    const at::NoGradGuard guard;
    const Tensor text = testing::random_bases(2, 400, 77);
    const Tensor full = at::log_softmax(backbone.model->forward(text), -1);
    const Tensor own = at::log_softmax(backbone.model->unembed(model.parallel(text).bases), -1);
    return (full.exp() * (full - own)).sum(-1).mean().item<double>();
  }
};

TEST_F(TablesTrainingTest, NoStageGivesTheClosedForm) {
  TrainConfig c = tables();
  c.stages.clear();
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
  stiff.memory.focus.tables.ridge = 1e9;  // nothing but the mean key
  run(stiff, "stiff");
  EXPECT_LT(divergence(c, "fit"), divergence(c, "stiff"));
}

TEST_F(TablesTrainingTest, StepsStartFromTheFitAndResumeBitEqual) {
  const TrainConfig c = tables();
  expect_resumes_bit_equal(c);
  TrainConfig fit = c;
  fit.stages.clear();
  run(fit, "fit");
  EXPECT_NE(adapter("whole"), adapter("fit"));
  EXPECT_LT(divergence(c, "whole"), 1.05 * divergence(c, "fit"));
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
