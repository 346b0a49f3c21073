#include "focus/train/run/run_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/version.h"
#include "focus/train/run/checkpoint.h"
#include "support/temporary_folder.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;

std::string error_of(const RunFolderOptions& options) {
  try {
    prepare_run_folder(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class RunFolderTest : public ::testing::Test {
 protected:
  RunFolderOptions options(
      const std::string& config = R"({"steps": 10, "optim": {"lr": 0.1}, "layers": [1, 2]})") {
    RunFolderOptions made;
    made.output = folder_.path() / "run";
    made.config_json = config;
    made.command_line = {"focus-train", "fit"};
    return made;
  }
  void save_checkpoint(int64_t step) {
    Checkpoint checkpoint;
    checkpoint.state.step = step;
    CheckpointStore(folder_.path() / "run" / "checkpoints").save(checkpoint);
  }
  testing::TemporaryFolder folder_;
};

TEST_F(RunFolderTest, FreshRunWritesConfigAndProvenance) {
  write_file(folder_.path() / "genome.fa", "abc");
  RunFolderOptions made = options();
  made.inputs = {digest_input(folder_.path() / "genome.fa")};
  const RunFolder run = prepare_run_folder(made);
  EXPECT_FALSE(run.resume_step.has_value());
  EXPECT_EQ(run.metrics, made.output / "metrics.jsonl");
  EXPECT_EQ(read_file(made.output / "config.json"), made.config_json);
  const std::string provenance = read_file(made.output / "provenance.json");
  for (const std::string& part :
       {std::string("\"focus-train\""), std::string(version()), std::string(git_hash()),
        std::string("genome.fa"), std::string("\"bytes\": 3"),
        std::string("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")}) {
    EXPECT_TRUE(has(provenance, part)) << part << " in " << provenance;
  }
}

TEST_F(RunFolderTest, NonEmptyOutputIsRefusedWithAdvice) {
  prepare_run_folder(options());
  EXPECT_THROW(prepare_run_folder(options()), ConfigError);
  const std::string error = error_of(options());
  for (const char* part : {"is not empty", "--resume", "--force", "--output"})
    EXPECT_TRUE(has(error, part)) << error;
  RunFolderOptions both = options();
  both.resume = both.force = true;
  EXPECT_TRUE(has(error_of(both), "contradict"));
  RunFolderOptions file = options();
  file.output = folder_.path() / "file";
  write_file(file.output, "x");
  EXPECT_TRUE(has(error_of(file), "is a file"));
  file.output = "";
  EXPECT_THROW(prepare_run_folder(file), ConfigError);
}

TEST_F(RunFolderTest, ResumeFindsTheNewestCompleteCheckpoint) {
  RunFolderOptions resume = options();
  resume.resume = true;
  EXPECT_FALSE(prepare_run_folder(resume).resume_step.has_value());  // nothing there yet: a fresh start
  EXPECT_FALSE(prepare_run_folder(resume).resume_step.has_value());  // killed before its first checkpoint
  save_checkpoint(5);
  save_checkpoint(7);
  fs::remove(resume.output / "checkpoints" / "step-00000007" / "manifest.json");
  EXPECT_EQ(prepare_run_folder(resume).resume_step, 5);
  EXPECT_TRUE(has(read_file(resume.output / "provenance.json"), "\"resumed_from_step\": 5"));
}

TEST_F(RunFolderTest, ResumeRefusesOtherSettings) {
  prepare_run_folder(options());
  RunFolderOptions changed = options(R"({"steps": 20, "optim": {"lr": 0.2}, "layers": [1], "extra": true})");
  changed.resume = true;
  const std::string error = error_of(changed);
  for (const char* part :
       {"steps: 10 -> 20", "optim.lr: 0.1 -> 0.2", "layers.1: 2 -> (absent)", "extra: (absent) -> true"})
    EXPECT_TRUE(has(error, part)) << error;
  changed.may_change = {"steps", "optim", "layers", "extra"};
  EXPECT_EQ(error_of(changed), "no error");
  EXPECT_EQ(read_file(changed.output / "config.json"), changed.config_json);
  // A path covers what lies below it, not what merely begins like it.
  RunFolderOptions other = options(R"({"steps": 20, "optim": {"lr": 0.3}, "layers": [1], "extra": true})");
  other.resume = true;
  other.may_change = {"opt", "optim.l"};
  EXPECT_TRUE(has(error_of(other), "optim.lr: 0.2 -> 0.3"));
}

TEST_F(RunFolderTest, ResumeRefusesForeignFoldersAndChangedInputs) {
  RunFolderOptions resume = options();
  resume.resume = true;
  fs::create_directories(resume.output);
  write_file(resume.output / "thesis.txt", "precious");
  EXPECT_TRUE(has(error_of(resume), "provenance.json"));
  fs::remove(resume.output / "thesis.txt");

  resume.inputs = {{"genome.fa", 3, "aa"}};
  prepare_run_folder(resume);
  EXPECT_EQ(error_of(resume), "no error");
  resume.inputs = {{"genome.fa", 3, "bb"}};
  EXPECT_THROW(prepare_run_folder(resume), DataError);
}

TEST_F(RunFolderTest, AChangedElementOfAListIsShownAlone) {
  prepare_run_folder(
      options(R"({"stages": [{"length": 64, "steps": 10}, {"length": 128, "steps": 5}], "layers": [1, 2]})"));
  RunFolderOptions changed = options(
      R"({"stages": [{"length": 64, "steps": 10}, {"length": 128, "steps": 6}], "layers": [1, 3, 4]})");
  changed.resume = true;
  const std::string error = error_of(changed);
  for (const char* part :
       {"\n  stages.1.steps: 5 -> 6", "\n  layers.1: 2 -> 3", "\n  layers.2: (absent) -> 4"})
    EXPECT_TRUE(has(error, part)) << error;
  EXPECT_FALSE(has(error, "length")) << error;
}

TEST_F(RunFolderTest, ASettingThatCameLaterIsNoDifference) {
  prepare_run_folder(options(R"({"steps": 10, "optim": {"lr": 0.1}})"));
  RunFolderOptions now = options(R"({"steps": 10, "optim": {"lr": 0.1, "beta": 0.9}, "adapter": ""})");
  now.default_config_json = R"({"steps": 1, "optim": {"lr": 1, "beta": 0.9}, "adapter": ""})";
  now.resume = true;
  EXPECT_EQ(error_of(now), "no error");
  now.config_json = R"({"steps": 10, "optim": {"lr": 0.1, "beta": 0.9}, "adapter": "runs/a"})";
  EXPECT_TRUE(has(error_of(now), "adapter: \"\" -> \"runs/a\""));
}

TEST_F(RunFolderTest, OneRunAtATime) {
  const RunFolder run = prepare_run_folder(options());
  RunFolderOptions other = options();
  for (int i = 0; i < 3; ++i) {
    other.resume = i == 1;
    other.force = i == 2;
    const std::string error = error_of(other);
    EXPECT_TRUE(has(error, "in use by")) << error;
    EXPECT_TRUE(has(error, concat("process ", ::getpid()).c_str())) << error;
  }
  EXPECT_EQ(read_file(run.root / "config.json"), options().config_json);
}

TEST_F(RunFolderTest, NoInputIsReplaced) {
  prepare_run_folder(options());
  save_checkpoint(5);
  const fs::path run = folder_.path() / "run";
  write_file(run / "data.fa", "mine");
  for (const char* input : {"config.json", "checkpoints/step-00000005/trainable.safetensors", "model.pt",
                            "adapter.safetensors"}) {
    RunFolderOptions force = options();
    force.force = true;
    force.reads = {{"model_checkpoint", run / input}};
    EXPECT_TRUE(has(error_of(force), "model_checkpoint")) << input;
    EXPECT_TRUE(fs::exists(run / "checkpoints/step-00000005")) << input;
  }
  RunFolderOptions force = options();
  force.force = true;
  force.reads = {{"data", run / "data.fa"}};  // which no run writes
  EXPECT_EQ(error_of(force), "no error");
  EXPECT_EQ(read_file(run / "data.fa"), "mine");
}

TEST_F(RunFolderTest, ARunKeepsItsNameAndDate) {
  RunFolderOptions resume = options();
  resume.resume = true;
  const std::string name = prepare_run_folder(resume).run;
  EXPECT_EQ(name.size(), 16U);
  EXPECT_EQ(prepare_run_folder(resume).run, name);
  RunFolderOptions other = options("{}");
  other.output = folder_.path() / "other";
  const RunFolder made = prepare_run_folder(other);
  EXPECT_NE(made.run, name);
  EXPECT_EQ(made.begun.size(), 10U);
}

TEST_F(RunFolderTest, ForceReplacesTheRunAndNothingElse) {
  prepare_run_folder(options());
  save_checkpoint(5);
  RunFolderOptions force = options("{}");
  force.force = true;
  write_file(force.output / "metrics.jsonl", "{}\n");
  write_file(force.output / "thesis.txt", "precious");
  EXPECT_FALSE(prepare_run_folder(force).resume_step.has_value());
  EXPECT_FALSE(fs::exists(force.output / "metrics.jsonl"));
  EXPECT_FALSE(fs::exists(force.output / "checkpoints"));
  EXPECT_TRUE(fs::exists(force.output / "thesis.txt"));
  EXPECT_EQ(read_file(force.output / "config.json"), "{}");
}

}  // namespace
}  // namespace focus::train
