// Training runs on a small random backbone and 4,000 random bases, in a temporary folder.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "focus/core/file.h"
#include "focus/train/loop/trainer.h"

#include "support/small_model.h"
#include "support/temporary_folder.h"

namespace focus::train {

class AdapterTrainingTest : public ::testing::Test {
 protected:
  AdapterTrainingTest() {
    ::setenv("SOURCE_DATE_EPOCH", "1700000000", 1);  // runs of both sides of midnight end in the same bytes
    testing::write_small_model(folder_.path());
    std::mt19937 random(3);
    std::string fasta = ">one\n";
    for (int i = 0; i < 4000; ++i) fasta += "ACGT"[random() % 4];
    write_file(folder_.path() / "dna.fa", fasta + "\n");
  }

  TrainConfig config() const {
    TrainConfig c;
    c.model_config = (folder_.path() / "small.yml").string();
    c.model_checkpoint = (folder_.path() / "small.pt").string();
    c.memory.window.size = 16;
    c.memory.focus.k = 5;
    c.memory.focus.rank = 4;
    c.data.sources.resize(1);
    c.data.sources[0].fasta = (folder_.path() / "dna.fa").string();
    c.stages[0].length = 64;
    c.stages[0].steps = 12;
    c.accumulation = 2;
    c.optimizer.lr = 1e-2;
    c.schedule.warmup_steps = 2;
    c.checkpoint_every = 4;
    c.device = "cpu";
    c.threads = 1;
    return c;
  }
  TrainResult run(const TrainConfig& c, const std::string& name, bool resume = false) const {
    const auto task = make_task(c, at::kCPU);
    TrainerOptions options;
    options.output = folder_.path() / name;
    options.resume = resume;
    return train(c, *task, options);
  }
  std::string adapter(const std::string& name) const {
    return read_file(folder_.path() / name / "adapter.safetensors");
  }
  /// One figure of all lines of metrics that have it.
  std::vector<double> figures(const std::string& name, const std::string& figure) const {
    std::ifstream in(folder_.path() / name / "metrics.jsonl");
    std::vector<double> out;
    const std::string key = "\"" + figure + "\":";
    for (std::string line; std::getline(in, line);) {
      if (const auto at = line.find(key); at != std::string::npos)
        out.push_back(std::stod(line.substr(at + key.size())));
    }
    return out;
  }
  std::vector<double> losses(const std::string& name) const { return figures(name, "loss"); }

  /// A run of 12 steps whose last checkpoint and result are taken away, resumed: the same adapter and losses.
  void expect_resumes_bit_equal(const TrainConfig& c) const {
    run(c, "whole");
    std::filesystem::copy(folder_.path() / "whole", folder_.path() / "cut",
                          std::filesystem::copy_options::recursive);
    std::filesystem::remove_all(folder_.path() / "cut/checkpoints/step-00000012");
    std::filesystem::remove(folder_.path() / "cut/adapter.safetensors");
    run(c, "cut", /*resume=*/true);
    EXPECT_EQ(adapter("cut"), adapter("whole"));
    EXPECT_EQ(losses("cut"), losses("whole"));
  }

  testing::TemporaryFolder folder_;
};

}  // namespace focus::train
