// The loop around a task: non-finite steps, the best parameters, interrupts and resuming, on a task small
// enough to say when each happens.
#include "focus/train/loop/trainer.h"

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/interrupt.h"
#include "focus/train/run/checkpoint.h"
#include "focus/train/run/run_plan.h"
#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace focus::train {
namespace {

using Json = nlohmann::json;

/// Four numbers that learn the letters' frequencies. The loss is not finite for a sequence that begins with
/// `poison`.
class LetterTask final : public Task {
 public:
  explicit LetterTask(char poison) : poison_(poison) { model_.parameters[0].tensor.set_requires_grad(true); }
  const TrainedModel& model() const override { return model_; }
  std::unique_ptr<Objective> objective(int64_t, const StageConfig&) override {
    return std::make_unique<Letters>(*this);
  }
  Validation validate(const Batch&) override {
    // Best at the third validation.
    ++validations;
    const at::Tensor distance = at::scalar_tensor(std::abs(validations - 3.0), at::kDouble);
    return {{{"distance", distance, at::ones({}, at::kDouble)}}};
  }
  void write_result(const std::filesystem::path& folder, const std::string&) const override {
    std::filesystem::create_directories(folder);
    write_file(folder / "result.txt", concat(weight()[0].item<float>(), " ", weight()[1].item<float>()));
  }

  int validations = 0;
  std::function<void(int64_t)> before_loss = [](int64_t) {};  // told how many losses there were

 private:
  class Letters final : public Objective {
   public:
    explicit Letters(LetterTask& task) : task_(task) {}
    at::Tensor weigh(Batch& batch) override { return at::scalar_tensor(batch.tokens.numel(), at::kDouble); }
    void loss(const Batch& batch, const std::function<void(const LossSum&)>& add) override {
      task_.before_loss(task_.losses_++);
      at::Tensor sum = at::zeros({});
      const at::Tensor log_p = at::log_softmax(task_.weight(), 0);
      for (int64_t i = 0; i < 4; ++i) sum = sum - log_p[i] * batch.tokens.eq("ACGT"[i]).sum();
      if (batch.tokens[0][0].item<int64_t>() == task_.poison_) sum = sum * std::nan("");
      add({sum, {}, {}});
    }

   private:
    LetterTask& task_;
  };
  const at::Tensor& weight() const { return model_.parameters[0].tensor; }

  char poison_;
  int64_t losses_ = 0;
  TrainedModel model_{testing::small_model(at::kFloat), {{"weight", at::zeros({4}), false}}, "letters"};
};

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    reset_interrupt();
    std::mt19937 random(3);
    std::string letters;
    for (int i = 0; i < 2000; ++i) letters += "AACGT"[random() % 5];
    write_file(folder_.path() / "dna.fa", ">one\n" + letters + "\n");
    std::string other;
    for (int i = 0; i < 500; ++i) other += "AACGT"[random() % 5];
    write_file(folder_.path() / "held_out.fa", ">two\n" + other + "\n");
  }
  ~TrainerTest() override { reset_interrupt(); }

  TrainConfig config() const {
    TrainConfig c;
    c.data.sources.resize(1);
    c.data.sources[0].fasta = (folder_.path() / "dna.fa").string();
    c.stages[0].length = 64;
    c.stages[0].steps = 20;
    c.accumulation = 1;
    c.optimizer.lr = 1e-2;
    c.schedule.warmup_steps = 2;
    c.checkpoint_every = 7;
    c.device = "cpu";
    return c;
  }
  TrainConfig validated() const {
    TrainConfig c = config();
    c.validation.every = 3;
    c.validation.sequences = 1;
    c.validation.length = 64;
    c.validation.data.sources.resize(1);
    c.validation.data.sources[0].fasta = (folder_.path() / "held_out.fa").string();
    return c;
  }
  TrainResult run(const TrainConfig& c, const std::string& name, char poison = 0, bool resume = false,
                  int validations = 0) const {
    LetterTask task(poison);
    task.validations = validations;
    TrainerOptions options;
    options.output = folder_.path() / name;
    options.resume = resume;
    return train(c, task, options);
  }
  std::string error_of(const TrainConfig& c, const std::string& name, char poison = 0,
                       bool resume = false) const {
    try {
      run(c, name, poison, resume);
    } catch (const CheckFailed& error) {
      return error.what();
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  }
  std::vector<Json> lines(const std::string& name) const {
    std::ifstream in(folder_.path() / name / "metrics.jsonl");
    std::vector<Json> out;
    for (std::string line; std::getline(in, line);) {
      out.push_back(Json::parse(line));
      for (const char* volatile_field : {"bases_per_second", "seconds_left", "peak_resident_bytes"})
        out.back().erase(volatile_field);
    }
    return out;
  }
  std::string result(const std::string& name) const {
    return read_file(folder_.path() / name / "result.txt");
  }
  std::vector<int64_t> steps(const std::string& name) const {
    return CheckpointStore(folder_.path() / name / "checkpoints").steps();
  }
  /// As a kill would leave the folder that was last saved at `step`.
  void cut(const std::string& from, const std::string& to, int64_t step) const {
    std::filesystem::copy(folder_.path() / from, folder_.path() / to,
                          std::filesystem::copy_options::recursive);
    const CheckpointStore store(folder_.path() / to / "checkpoints");
    for (const int64_t later : store.steps()) {
      if (later > step) std::filesystem::remove_all(store.path_of(later));
    }
  }

  testing::TemporaryFolder folder_;
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(TrainerTest, ANonFiniteLossStopsAndNamesItsSamples) {
  const std::string error = error_of(config(), "run", 'G');
  EXPECT_TRUE(has(error, "loss nan")) << error;
  EXPECT_TRUE(has(error, " one:")) << error;
  EXPECT_TRUE(has(error, "non_finite=skip")) << error;
}

TEST_F(TrainerTest, SkippedStepsChangeNothingAreLoggedAndSurviveResuming) {
  TrainConfig c = config();
  c.non_finite = NonFinite::skip;
  c.keep_last = 10;
  EXPECT_GT(run(c, "whole", 'G').skipped, 1);
  const auto whole = lines("whole");
  ASSERT_EQ(whole.size(), 20U);
  int64_t skipped = 0;
  for (const Json& line : whole) {
    EXPECT_EQ(line["loss"].is_null(), line.contains("skipped")) << line;
    if (line.contains("skipped")) {
      EXPECT_EQ(line["skipped"].get<int64_t>(), ++skipped);
    }
  }
  const CheckpointStore store(folder_.path() / "whole" / "checkpoints");
  EXPECT_EQ(store.load(20).state.get<int64_t>("skipped"), skipped);
  // A skipped step is no update of the optimizer either.
  EXPECT_EQ(store.load(20).optimizer.at("weight.updates").item<int64_t>(), 20 - skipped);
  EXPECT_TRUE(store.load(20).trainable.at("weight").isfinite().all().item<bool>());
  cut("whole", "cut", 14);
  run(c, "cut", 'G', /*resume=*/true);
  EXPECT_EQ(lines("cut"), whole);
  EXPECT_EQ(result("cut"), result("whole"));
}

TEST_F(TrainerTest, MoreSkipsThanAllowedEndTheRun) {
  TrainConfig c = config();
  c.non_finite = NonFinite::skip;
  c.max_skips = 1;
  EXPECT_TRUE(has(error_of(c, "run", 'G'), "max_skips"));
  c.max_skips = 20;  // one of the settings that a resumed run may change
  run(c, "run", 'G', /*resume=*/true);
  EXPECT_EQ(lines("run").size(), 20U);
}

TEST_F(TrainerTest, EachStageHasItsPeakLearningRate) {
  TrainConfig c = config();
  c.schedule.warmup_steps = 0;
  c.schedule.kind = DecayKind::linear;
  c.schedule.final_ratio = 0.5;
  c.stages = {c.stages[0], c.stages[0], c.stages[0]};
  for (StageConfig& stage : c.stages) stage.steps = 2;
  c.stages[0].lr = 4e-3;
  c.stages[2].lr = 1e-3;
  run(c, "stages");
  const auto written = lines("stages");
  const std::vector<double> expected = {4e-3, 4e-3 * 0.9, 1e-2 * 0.8, 1e-2 * 0.7, 1e-3 * 0.6, 1e-3 * 0.5};
  ASSERT_EQ(written.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(written[i]["lr"].get<double>(), expected[i], 1e-12) << "step " << i + 1;
}

TEST_F(TrainerTest, EpochsCountTheirOwnSteps) {
  TrainConfig c = config();
  c.accumulation = 3;
  c.stages = {c.stages[0], c.stages[0]};
  c.stages[0].steps = 2;
  c.stages[1].epochs = 2;
  // 2,000 bases hold 31 windows of 64: 62 in two passes, 21 steps of 3.
  EXPECT_EQ(run(c, "epochs").steps, 2 + 21);
  EXPECT_NE(describe_run(c, LetterTask(0), 1).find("steps: 23"), std::string::npos);
  // Resumed in the middle of the second pass the run ends as the uninterrupted one.
  cut("epochs", "cut", 14);
  run(c, "cut", 0, /*resume=*/true);
  EXPECT_EQ(result("cut"), result("epochs"));
  c.stages.erase(c.stages.begin());
  c.data.sources[0].weight = 2;
  EXPECT_THROW(c.validate(), ConfigError);
}

TEST_F(TrainerTest, TheBestParametersAreKeptWhateverTheIntervalsAndAreTheResult) {
  TrainConfig c = validated();
  c.checkpoint_every = 7;
  c.keep_last = 1;
  run(c, "best");
  EXPECT_EQ(steps("best"), (std::vector<int64_t>{9, 20}));  // the third validation, and the last step
  c.result = ResultKind::last;
  run(c, "last");
  EXPECT_EQ(result("best"), read_file(folder_.path() / "last" / "best" / "result.txt"));
  EXPECT_NE(result("best"), result("last"));
  TrainConfig shorter = config();
  shorter.stages[0].steps = 9;
  run(shorter, "nine");
  EXPECT_EQ(result("best"), result("nine"));
}

TEST_F(TrainerTest, TheBestSurvivesResumingAndRotation) {
  TrainConfig c = validated();
  c.keep_last = 1;
  run(c, "whole");
  cut("whole", "cut", 14);
  // Only the best is left of what came before: the run goes on from it.
  EXPECT_EQ(steps("cut"), (std::vector<int64_t>{9}));
  run(c, "cut", 0, /*resume=*/true, /*validations=*/3);
  EXPECT_EQ(steps("cut"), steps("whole"));
  EXPECT_EQ(result("cut"), result("whole"));
  EXPECT_EQ(lines("cut"), lines("whole"));
}

TEST_F(TrainerTest, ACheckpointOfAnotherRunIsNotGoneOnFrom) {
  run(config(), "long");
  TrainConfig shorter = config();
  shorter.stages[0].steps = 9;
  run(shorter, "short");
  const auto checkpoint = [&](const std::string& name, int64_t step) {
    return CheckpointStore(folder_.path() / name / "checkpoints").path_of(step);
  };
  const auto refusal = [&] {
    try {
      run(shorter, "short", 0, /*resume=*/true);
    } catch (const CheckpointError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  std::filesystem::remove_all(checkpoint("short", 9));
  std::filesystem::remove_all(checkpoint("short", 7));
  std::filesystem::copy(checkpoint("long", 7), checkpoint("short", 7));
  EXPECT_TRUE(has(refusal(), "another run")) << refusal();
  std::filesystem::copy(checkpoint("long", 20), checkpoint("short", 20));
  EXPECT_TRUE(has(refusal(), "saved after step 20, but this run has 9 steps")) << refusal();
}

TEST_F(TrainerTest, AResumeWithNothingLeftSaysSo) {
  run(config(), "run");
  const std::string before = result("run");
  ::testing::internal::CaptureStderr();
  const TrainResult again = run(config(), "run", 0, /*resume=*/true);
  EXPECT_TRUE(
      has(::testing::internal::GetCapturedStderr(), "nothing to resume: all 20 steps were done before"));
  EXPECT_EQ(again.trained, 0);
  EXPECT_EQ(again.steps, 20);
  EXPECT_EQ(result("run"), before);
}

TEST_F(TrainerTest, ASignalEndsWithACheckpointAndItsExitCode) {
  for (const auto& [which, code] :
       {std::pair{SIGINT, ExitCode::interrupted}, std::pair{SIGTERM, ExitCode::terminated}}) {
    const int signal = which;  // a binding cannot be captured
    const std::string name = concat("signal-", signal);
    TrainConfig c = config();
    c.stages[0].steps = 20;
    LetterTask task(0);
    task.before_loss = [&](int64_t losses) {
      if (losses == 4) request_interrupt(signal);
    };
    TrainerOptions options;
    options.output = folder_.path() / name;
    try {
      train(c, task, options);
      ADD_FAILURE() << "expected Interrupted";
    } catch (const Interrupted& error) {
      EXPECT_EQ(error.exit_code(), code);
      EXPECT_TRUE(has(error.what(), "after step 5 of 20")) << error.what();
    }
    reset_interrupt();
    EXPECT_EQ(steps(name), std::vector<int64_t>{5});
    run(c, name, 0, /*resume=*/true);
    if (!std::filesystem::exists(folder_.path() / "whole")) run(c, "whole");
    EXPECT_EQ(result(name), result("whole"));
  }
}

TEST_F(TrainerTest, HeldOutDataMustBeHeldOut) {
  TrainConfig c = validated();
  c.validation.data.sources[0] = c.data.sources[0];
  EXPECT_TRUE(has(error_of(c, "same"), "both draw from one:1-2000"));
  c.data.sources[0].regions = {"one:1-1000"};
  c.validation.data.sources[0].regions = {"one:900-1500"};
  EXPECT_TRUE(has(error_of(c, "overlap"), "both draw from one:900-1000"));
  c.validation.data.sources[0].regions = {"one:1001-1500"};
  run(c, "apart");
  c.data.sources[0].regions = {};
  c.data.exclude = {"one:1001-1500"};
  run(c, "excluded");
  c.data.exclude.clear();
  c.validation.allow_overlap = true;
  run(c, "allowed");
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "same"));
}

TEST_F(TrainerTest, HeldOutSequencesUnderAnotherNameAreFound) {
  TrainConfig c = validated();
  const std::string text = read_file(folder_.path() / "dna.fa");
  // The same file by another path, other names for its records, and the opposite strand.
  write_file(folder_.path() / "copy.fa", text);
  write_file(folder_.path() / "renamed.fa", ">other\n" + text.substr(5));
  std::string reversed(text.substr(5, 2000));
  std::reverse(reversed.begin(), reversed.end());
  for (char& letter : reversed)
    letter = letter == 'A' ? 'T' : letter == 'T' ? 'A' : letter == 'C' ? 'G' : 'C';
  write_file(folder_.path() / "reversed.fa", ">reversed\n" + reversed + "\n");
  for (const auto& [file, message] :
       {std::pair{"copy.fa", "is a copy of it"}, std::pair{"renamed.fa", "also in the training data"},
        std::pair{"reversed.fa", "also in the training data"}}) {
    c.validation.data.sources[0].fasta = (folder_.path() / file).string();
    EXPECT_TRUE(has(error_of(c, "run"), message)) << file << ": " << error_of(c, "run");
  }
}

}  // namespace
}  // namespace focus::train
