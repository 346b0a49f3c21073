// Runs of training lose the same on a card as on the CPU, and write results that the CPU reads.
#include "focus/model/placement.h"
#include "support/devices.h"
#include "train/adapter_training.h"

namespace focus::train {
namespace {

using testing::TestDevice;

class TrainingOnDeviceTest : public AdapterTrainingTest, public ::testing::WithParamInterface<TestDevice> {
 protected:
  void SetUp() override {
    if (const std::string reason = testing::missing(GetParam()); !reason.empty()) GTEST_SKIP() << reason;
  }
  void run_on(const std::string& device, TrainConfig c, const std::string& name) const {
    c.device = device;
    const auto task = make_task(c, model::first_device(device));
    TrainerOptions options;
    options.output = folder_.path() / name;
    train(c, *task, options);
  }
  TrainConfig short_config() const {
    TrainConfig c = config();
    c.stages[0].steps = 3;
    return c;
  }
  void expect_same(const TrainConfig& c) const { expect_same(c, testing::device_of(GetParam()).str()); }
  void expect_same(const TrainConfig& c, const std::string& card) const {
    std::filesystem::remove_all(folder_.path() / "cpu");
    std::filesystem::remove_all(folder_.path() / "card");
    run_on("cpu", c, "cpu");
    run_on(card, c, "card");
    const auto expected = losses("cpu"), got = losses("card");
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_GE(expected.size(), 3u);
    // Three steps of AdamW: it divides gradients by their own size, so that rounding errors of small ones
    // count.
    for (std::size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(got[i], expected[i], 1e-3 * std::abs(expected[i])) << "step " << i;
  }
};

TEST_P(TrainingOnDeviceTest, LayersSplitOverTwoCards) {
  if (GetParam() == TestDevice::cuda && at::getNumGPUs() < 2) GTEST_SKIP() << "one CUDA device";
  const std::string type = testing::device_of(GetParam()).is_cuda() ? "cuda" : "hpu";
  expect_same(short_config(), type + ":0," + type + ":1");
  TrainConfig matching = short_config();
  matching.stages[0].kind = StageKind::match;
  expect_same(matching, type + ":1=0-2," + type + ":0=3-4");
}

TEST_P(TrainingOnDeviceTest, AnAdapterOfTheFittedUnit) { expect_same(short_config()); }

TEST_P(TrainingOnDeviceTest, AnAdapterOfThePapersUnit) {
  TrainConfig c = short_config();
  c.memory.focus.unit = compress::UnitKind::paper;
  expect_same(c);
}

TEST_P(TrainingOnDeviceTest, SequentiallyWithRecomputation) {
  TrainConfig c = short_config();
  c.execution = Execution::sequential;
  c.bptt_windows = 2;
  expect_same(c);
}

TEST_P(TrainingOnDeviceTest, InParallelWithRecomputation) {
  TrainConfig c = short_config();
  c.recompute = true;
  expect_same(c);
}

TEST_P(TrainingOnDeviceTest, Pretraining) {
  TrainConfig c = short_config();
  c.task = TaskKind::pretrain;
  c.model_checkpoint.clear();
  c.optimizer.lr = 3e-3;
  expect_same(c);
}

TEST_P(TrainingOnDeviceTest, Matching) {
  TrainConfig c = short_config();
  c.stages[0].kind = StageKind::match;
  c.stages[0].match.queries = 4;
  expect_same(c);
}

TEST_P(TrainingOnDeviceTest, WithLowRankChangesOfTheBackbone) {
  TrainConfig c = short_config();
  c.adapt.lora.rank = 2;
  c.adapt.lora.targets = {"inner_mha_cls.Wqkv"};
  expect_same(c);
}

TEST_P(TrainingOnDeviceTest, BaseTables) {
  TrainConfig c = short_config();
  c.memory.focus.rank = compress::FocusConfig{}.rank;
  c.memory.kind = compress::MemoryKind::tables;
  c.memory.tables.word = 2;
  c.memory.tables.offsets = {0, 1, 3};
  c.memory.tables.fit_sequences = 8;
  c.memory.tables.fit_length = 200;
  expect_same(c);
}

INSTANTIATE_TEST_SUITE_P(Devices, TrainingOnDeviceTest, testing::kCards);

}  // namespace
}  // namespace focus::train
