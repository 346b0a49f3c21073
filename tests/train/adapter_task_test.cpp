// Training the adapter end to end on a small random backbone: it learns, accumulation is exact, and a resumed
// run is the uninterrupted one.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "adapter_training.h"
#include "focus/core/error.h"
#include "focus/core/interrupt.h"
#include "focus/core/version.h"
#include "focus/formats/digest.h"
#include "focus/formats/tensor_file.h"
#include "support/tensors.h"

namespace focus::train {
namespace {

using at::Tensor;

TEST_F(AdapterTrainingTest, OverfitsOneSequenceWithEitherUnit) {
  for (const auto unit : {compress::UnitKind::fitted, compress::UnitKind::paper}) {
    TrainConfig c = config();
    c.memory.focus.unit = unit;
    c.data.sources[0].regions = {"one:1-64"};
    c.stages[0].steps = 40;
    c.accumulation = 1;
    const std::string name = unit == compress::UnitKind::fitted ? "fitted" : "paper";
    run(c, name);
    const auto curve = losses(name);
    EXPECT_LT(curve.back(), 0.8 * curve.front()) << name << " " << curve.front() << " -> " << curve.back();
  }
}

TEST_F(AdapterTrainingTest, SequentialAndParallelTrainAlike) {
  TrainConfig c = config();
  run(c, "parallel");
  c.execution = Execution::sequential;
  run(c, "sequential");
  const auto a = losses("parallel"), b = losses("sequential");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4 * (1 + std::abs(a[i]))) << i;
}

TEST_F(AdapterTrainingTest, SameSeedSameBytes) {
  run(config(), "first");
  run(config(), "second");
  EXPECT_EQ(adapter("first"), adapter("second"));
}

TEST_F(AdapterTrainingTest, AnAdapterSaysHowItWasMade) {
  TrainConfig c = config();
  c.validation.every = 5;
  c.validation.sequences = 1;
  c.validation.length = 64;
  c.validation.data = c.data;
  c.validation.allow_overlap = true;
  run(c, "run");
  const auto file = formats::TensorFile::open(folder_.path() / "run/adapter.safetensors");
  const auto training = nlohmann::json::parse(file->metadata().at("training"));
  EXPECT_EQ(training["version"], version());
  EXPECT_EQ(training["begun"], "2023-11-14");
  const int64_t steps = training["steps"];
  EXPECT_EQ(training["bases"], steps * 2 * 64);
  const auto kl = figures("run", "validation_kl");  // after steps 5, 10 and 12
  EXPECT_EQ(training["validation"]["kl"], kl.at(steps == 5 ? 0 : steps == 10 ? 1 : 2));
  EXPECT_EQ(training["inputs"].size(), 3U);
  EXPECT_EQ(training["inputs"][2]["path"], c.data.sources[0].fasta);
  EXPECT_EQ(training["config"]["stages"][0]["steps"], 12);
  EXPECT_EQ(training["run"].get<std::string>().size(), 16U);
}

TEST_F(AdapterTrainingTest, ATrainingStartsFromAnAdapter) {
  TrainConfig c = config();
  c.optimizer.clip_norm = 0;
  run(c, "first");
  TrainConfig on = config();
  on.adapter = (folder_.path() / "first").string();
  on.memory.window.size = 20;  // no parameter depends on it
  on.optimizer.lr = 0;
  on.stages[0].steps = 1;
  run(on, "second");
  const auto tensors = [&](const std::string& name) {
    return formats::digest(*formats::TensorFile::open(folder_.path() / name / "adapter.safetensors"));
  };
  EXPECT_EQ(tensors("second"), tensors("first"));
  on.stages[0].steps = 12;
  on.optimizer.lr = 1e-2;
  expect_resumes_bit_equal(on);
  EXPECT_NE(tensors("whole"), tensors("first"));

  for (const auto& [change, said] : std::vector<std::pair<std::function<void(TrainConfig&)>, std::string>>{
           {[](TrainConfig& t) { t.memory.focus.rank = 3; }, "focus.rank: 4 -> 3"},
           {[](TrainConfig& t) { t.memory.focus.unit = compress::UnitKind::paper; },
            "focus.unit: \"fitted\" -> \"paper\""},
           {[](TrainConfig& t) { t.memory.focus.layers = {2}; }, "focus.layers"}}) {
    TrainConfig other = on;
    change(other);
    try {
      make_task(other, at::kCPU);
      ADD_FAILURE() << said;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(said), std::string::npos) << error.what();
    }
  }
  on.adapter = (folder_.path() / "nowhere").string();
  EXPECT_THROW(make_task(on, at::kCPU), CheckpointError);
}

// A run cut after step 8 (its later checkpoints removed, as after a kill) ends in the same bytes as the
// uninterrupted one.
TEST_F(AdapterTrainingTest, ResumeIsBitEqual) {
  run(config(), "whole");
  std::filesystem::copy(folder_.path() / "whole", folder_.path() / "cut",
                        std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(folder_.path() / "cut/checkpoints/step-00000012");
  std::filesystem::remove(folder_.path() / "cut/adapter.safetensors");
  run(config(), "cut", /*resume=*/true);
  EXPECT_EQ(adapter("cut"), adapter("whole"));
  EXPECT_EQ(losses("cut"), losses("whole"));
}

TEST_F(AdapterTrainingTest, AccumulationEqualsOneBigBatch) {
  TrainConfig c = config();
  c.optimizer.clip_norm = 0;
  c.stages[0].steps = 3;
  run(c, "accumulated");
  c.accumulation = 1;
  c.stages[0].batch = 2;
  run(c, "batched");
  const auto a = losses("accumulated"), b = losses("batched");
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5 * (1 + std::abs(a[i]))) << i;
}

TEST_F(AdapterTrainingTest, TruncatedBackPropagationStillTrains) {
  TrainConfig c = config();
  c.execution = Execution::sequential;
  c.bptt_windows = 1;
  EXPECT_THROW(c.validate(), ConfigError);
  c.bptt_windows = 2;
  run(c, "two");
  EXPECT_EQ(losses("two").size(), 12U);
}

TEST_F(AdapterTrainingTest, InlineFocusPositionsAreSupervised) {
  TrainConfig c = config();
  c.memory.focus.stream = compress::Stream::inline_tokens;
  c.memory.focus.unit = compress::UnitKind::paper;
  c.objective.kl = 0;
  c.objective.ce = 2;
  run(c, "bases");
  c.objective.focus_positions = true;
  run(c, "both");
  EXPECT_NE(losses("bases").front(), losses("both").front());
  // The parts make up the loss, each with its factor.
  const auto loss = losses("both"), ce = figures("both", "ce"), focus_ce = figures("both", "focus_ce");
  ASSERT_EQ(focus_ce.size(), loss.size());
  for (std::size_t i = 0; i < loss.size(); ++i)
    EXPECT_NEAR(2 * (ce[i] + focus_ce[i]), loss[i], 1e-6 * loss[i]) << i;
  EXPECT_TRUE(figures("bases", "focus_ce").empty());
}

TEST_F(AdapterTrainingTest, SettingsWithoutEffectAndImpossibleOnesAreRefused) {
  const auto refused = [&](const std::function<void(TrainConfig&)>& change) {
    TrainConfig c = config();
    change(c);
    EXPECT_THROW(c.validate(), ConfigError);
  };
  config().validate();
  refused([](TrainConfig& c) { c.stages[0].length = 16; });
  refused([](TrainConfig& c) { c.memory.focus.k = 17; });
  refused([](TrainConfig& c) { c.bptt_windows = 3; });
  refused([](TrainConfig& c) { c.objective.kl = 0; });
  refused([](TrainConfig& c) { c.objective.focus_positions = true; });
  refused([](TrainConfig& c) { c.freeze = {"D"}; });
  refused([](TrainConfig& c) { c.model_checkpoint.clear(); });
  refused([](TrainConfig& c) { c.data.sources.clear(); });
  refused([](TrainConfig& c) { c.data.copies.probability = 0.5; });
  refused([](TrainConfig& c) { c.init.seed = 3; });
  refused([](TrainConfig& c) { c.task = TaskKind::pretrain; });  // its memory settings are not the defaults
}

TEST_F(AdapterTrainingTest, AFitWithoutCorrectionsHasNothingToTrain) {
  TrainConfig c = config();
  c.memory.focus.fitted.corrections = false;
  c.memory.focus.rank = compress::FocusConfig{}.rank;
  EXPECT_THROW(make_task(c, at::kCPU), ConfigError);
}

TEST_F(AdapterTrainingTest, PretrainingLearnsAndResumesBitEqual) {
  TrainConfig c = config();
  c.task = TaskKind::pretrain;
  c.model_checkpoint.clear();
  c.freeze = {"log_poles"};
  c.optimizer.lr = 3e-3;
  c.stages[0].copies.probability = 1.0;
  c.stages[0].copies.min_length = 8;
  c.stages[0].copies.max_length = 20;
  run(c, "whole");
  const auto curve = losses("whole");
  EXPECT_LT(curve.back(), curve.front());
  std::filesystem::copy(folder_.path() / "whole", folder_.path() / "cut",
                        std::filesystem::copy_options::recursive);
  std::filesystem::remove_all(folder_.path() / "cut/checkpoints/step-00000012");
  std::filesystem::remove(folder_.path() / "cut/model.pt");
  run(c, "cut", /*resume=*/true);
  EXPECT_EQ(read_file(folder_.path() / "cut/model.pt"), read_file(folder_.path() / "whole/model.pt"));
}

TEST_F(AdapterTrainingTest, PretrainingAsksOfEachAttentionBlockInTurnThatForgettingCosts) {
  TrainConfig c = config();
  c.task = TaskKind::pretrain;
  c.model_checkpoint.clear();
  c.freeze = {"log_poles"};
  c.stages[0].copies.probability = 1.0;
  c.stages[0].copies.min_length = 50;
  c.stages[0].copies.max_length = 60;
  c.stages[0].length = 160;
  c.stages[0].steps = 4;
  run(c, "plain");
  EXPECT_TRUE(figures("plain", "copy_loss").empty());
  c.stages[0].forgetting.weight = 0.25;
  c.stages[0].forgetting.window = 160;
  run(c, "nothing_forgotten");
  const auto known = figures("nothing_forgotten", "copy_loss");
  ASSERT_FALSE(known.empty());
  const auto same = figures("nothing_forgotten", "forgetting_copy_loss");
  ASSERT_EQ(same.size(), known.size());
  for (std::size_t i = 0; i < known.size(); ++i) EXPECT_NEAR(same[i], known[i], 1e-5);
  c.stages[0].forgetting.window = 4;
  run(c, "forgets");
  EXPECT_GT(std::abs(figures("forgets", "forgetting_copy_loss")[0] - figures("forgets", "copy_loss")[0]),
            1e-4);
  // The loss is what a plain run has, and the missing nats of the copies' bases times the weight.
  EXPECT_NEAR(losses("forgets")[0], losses("plain")[0] + 0.25 * figures("forgets", "forgetting")[0], 1e-5);
  const auto blocks = figures("forgets", "forgets");
  const auto attention = make_task(c, at::kCPU)->model().backbone->attention_blocks();
  ASSERT_EQ(blocks.size(), 4U);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    EXPECT_EQ(blocks[i], static_cast<double>(attention[i % attention.size()]));
}

}  // namespace
}  // namespace focus::train
