// Every training configuration that comes with focus is complete and consistent.
#include <gtest/gtest.h>

#include <filesystem>

#include "focus/core/file.h"
#include "focus/model/config.h"
#include "focus/train/run/config.h"
#include "support/idle_settings.h"

namespace focus::train {
namespace {

TEST(ShippedConfigsTest, TrainingRunsParseAndHold) {
  int64_t seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(FOCUS_SOURCE_DIR) + "/configs")) {
    if (entry.path().extension() != ".json" || read_file(entry.path()).find("\"task\"") == std::string::npos)
      continue;
    TrainConfig config;
    config::read_file(entry.path().string(), {}, config);
    config.validate();
    const auto exists = [&](const std::string& path) {
      EXPECT_TRUE(path.empty() || std::filesystem::exists(std::string(FOCUS_SOURCE_DIR) + "/" + path))
          << entry.path() << ": " << path;
    };
    exists(config.model_config);
    exists(config.model_checkpoint);
    for (const auto& source : config.data.sources) exists(source.fasta);
    for (const auto& source : config.validation.data.sources) exists(source.fasta);
    ++seen;
  }
  EXPECT_GE(seen, 2);
}

// They name files that a user brings.
TEST(ShippedConfigsTest, RunsOfThePaperParseAndHold) {
  const std::string folder = std::string(FOCUS_SOURCE_DIR) + "/configs/paper/";
  TrainConfig config;
  config::read_file(folder + "train_grch38_chr1.json", {}, config);
  config.validate();
  EXPECT_EQ(config.stages.at(0).epochs, 1);
  for (const char* sibling : {"focus.k=50", "window.size=2048"}) {
    TrainConfig other;
    config::read_file(folder + "train_grch38_chr1.json", {sibling}, other);
    other.validate();
  }
  TrainConfig fitted;
  config::read_file(folder + "train_grch38_chr1_fitted.json", {}, fitted);
  fitted.validate();
  EXPECT_GT(fitted.stages.at(0).length, 4 * fitted.memory.window.size);
}

TEST(TrainConfigTest, SettingsWithoutEffectAreRefused) {
  testing::expect_idle_settings_refused<TrainConfig>({{},
                                                      {"far.kmers=4"},
                                                      {"far.kmers=4", "far.place=file"},
                                                      {"far.kmers=4", "far.score=sketch"},
                                                      {"task=pretrain", "data.sources=[{\"jsonl\": \"x\"}]"},
                                                      {"stages=[{\"kind\": \"match\"}]"},
                                                      {"stages=[{\"epochs\": 1}]"},
                                                      {"focus.unit=paper"},
                                                      {"memory.kind=tables", "focus.schedule=[{}]"},
                                                      {"memory.kind=tables", "stages=[]"},
                                                      {"memory.kind=quantised"},
                                                      {"focus.fitted.corrections=false"},
                                                      {"focus.local=kmer"},
                                                      {"focus.eviction=rolling"},
                                                      {"focus.history=none"},
                                                      {"focus.schedule=[{\"memory\": \"full\"}]"}});
}

TEST(ShippedConfigsTest, ModelShapesParse) {
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(FOCUS_SOURCE_DIR) + "/configs/models")) {
    if (entry.path().extension() != ".yml") continue;
    EXPECT_GT(model::read_model_config(entry.path().string()).hidden_size, 0) << entry.path();
  }
}

}  // namespace
}  // namespace focus::train
