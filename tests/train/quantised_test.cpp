// Quantised memory has nothing to train of its own: the backbone's changes are trained on it.
#include "adapter_training.h"
#include "focus/compress/focus/adapter_file.h"
#include "focus/core/error.h"

namespace focus::train {
namespace {

class QuantisedTrainingTest : public AdapterTrainingTest {
 protected:
  TrainConfig quantised(Execution execution) const {
    TrainConfig c = config();
    c.memory.focus.rank = compress::FocusConfig{}.rank;
    c.memory.kind = compress::MemoryKind::quantised;
    c.memory.quantised = {.bits = 4, .key_group = 6};
    c.adapt.lora.targets = {"inner_mha_cls.Wqkv"};
    c.adapt.lora.rank = 2;
    c.objective.skip_first_window = false;
    c.execution = execution;
    return c;
  }
};

TEST_F(QuantisedTrainingTest, LowRankChangesAreTrainedOnItInBothExecutions) {
  run(quantised(Execution::parallel), "parallel");
  run(quantised(Execution::sequential), "sequential");
  const std::vector<double> whole = figures("parallel", "loss"), in_turn = figures("sequential", "loss");
  ASSERT_EQ(whole.size(), 12u);
  ASSERT_EQ(in_turn.size(), 12u);
  for (std::size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(whole[i], in_turn[i], 1e-3 * whole[i]) << i;
  const auto backbone = weights::load_model((folder_.path() / "small.yml").string(),
                                            (folder_.path() / "small.pt").string(), at::kFloat, "cpu");
  const auto loaded = compress::load_adapter(folder_.path() / "parallel" / "adapter.safetensors",
                                             backbone.model, backbone.digest);
  EXPECT_TRUE(loaded.adapter->parameters().empty());
  EXPECT_EQ(loaded.adapter->config().quantised, quantised(Execution::parallel).memory.quantised);
  EXPECT_NE(loaded.adapted.backbone, backbone.model);
  const compress::CompressedModel model(loaded.adapted.backbone, loaded.adapter);
  EXPECT_EQ(model.planned_use(33).entries, 32);
}

TEST_F(QuantisedTrainingTest, WithoutChangesOfTheBackboneThereIsNothingToTrain) {
  TrainConfig c = quantised(Execution::parallel);
  c.adapt = {};
  c.objective.skip_first_window = true;
  EXPECT_THROW(make_task(c, at::kCPU), ConfigError);
  c = quantised(Execution::parallel);
  c.stages[0].kind = StageKind::match;
  EXPECT_THROW(c.validate(), ConfigError);
}

}  // namespace
}  // namespace focus::train
