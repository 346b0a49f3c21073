#include "focus/train/run/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/random.h"
#include "focus/train/loop/optimizer.h"
#include "support/temporary_folder.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;

Checkpoint example(int64_t step) {
  Checkpoint out;
  out.state.step = step;
  out.state.samples = 4 * step;
  out.state.extra = {
      {"rng", std::string(64, '7')}, {"cursor", (int64_t{1} << 60) + 1}, {"best_loss", 0.1}, {"three", 3.0}};
  out.trainable = {{"b.weight", at::arange(12, at::kFloat).view({3, 4}).t()},  // not contiguous
                   {"a.bias", at::full({5}, 0.1, at::kBFloat16)},
                   {"scalar", at::tensor(2.5, at::kDouble)},
                   {"empty", at::empty({0, 3})}};
  out.optimizer = {{"b.weight.exp_avg", at::ones({4, 3}) * static_cast<double>(step)},
                   {"b.weight.updates", at::full({1}, step, at::kLong)}};
  return out;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "no error";
}

void flip_byte(const fs::path& path, int64_t from_end) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-from_end, std::ios::end);
  const int byte = file.get();
  file.seekp(-from_end, std::ios::end);
  file.put(static_cast<char>(byte ^ 1));
}

TEST(Checkpoint, LoadsWhatWasSaved) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path() / "checkpoints");
  EXPECT_FALSE(store.latest().has_value());
  const Checkpoint saved = example(123);
  EXPECT_EQ(store.save(saved).filename(), "step-00000123");
  ASSERT_EQ(store.latest(), 123);
  const Checkpoint loaded = store.load(123);
  EXPECT_EQ(loaded.state.step, 123);
  EXPECT_EQ(loaded.state.samples, 492);
  EXPECT_EQ(loaded.state.extra, saved.state.extra);
  EXPECT_EQ(loaded.state.get<int64_t>("cursor"), (int64_t{1} << 60) + 1);
  EXPECT_EQ(loaded.state.get<double>("three"), 3.0);
  EXPECT_THROW(loaded.state.get<double>("cursor"), CheckpointError);
  EXPECT_THROW(loaded.state.get<double>("absent"), CheckpointError);
  for (const auto& [got, expected] :
       {std::pair(loaded.trainable, saved.trainable), std::pair(loaded.optimizer, saved.optimizer)}) {
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_EQ(got.at(name).scalar_type(), tensor.scalar_type()) << name;
      EXPECT_TRUE(at::equal(got.at(name), tensor)) << name;
    }
  }
}

TEST(Checkpoint, FolderWithoutManifestIsIgnored) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  store.save(example(1));
  store.save(example(2));
  fs::remove(store.path_of(2) / "manifest.json");
  fs::create_directories(folder.path() / "step-00000009.tmp-1");
  write_file(folder.path() / "step-00000009.tmp-1" / "manifest.json", "{}");
  write_file(folder.path() / "notes.txt", "mine");
  EXPECT_EQ(store.steps(), std::vector<int64_t>{1});
  EXPECT_EQ(store.latest(), 1);
  EXPECT_NE(error_of([&] { store.load(2); }).find("manifest.json is missing"), std::string::npos);
  // The next save clears what killed saves left behind, and nothing else.
  store.save(example(3));
  EXPECT_FALSE(fs::exists(folder.path() / "step-00000009.tmp-1"));
  EXPECT_TRUE(fs::exists(folder.path() / "notes.txt"));
}

TEST(Checkpoint, AFailedSaveLeavesTheEarlierOnes) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  store.save(example(1));
  Checkpoint bad = example(2);
  bad.state.extra["loss"] = std::numeric_limits<double>::infinity();
  EXPECT_THROW(store.save(bad), InternalError);
  bad = example(2);
  bad.trainable["complex"] = at::zeros({2}, at::kComplexFloat);
  EXPECT_THROW(store.save(bad), InternalError);
  EXPECT_EQ(store.steps(), std::vector<int64_t>{1});
  store.load(1);
  EXPECT_THROW(CheckpointStore("/dev/null/checkpoints").save(example(1)), DataError);
}

TEST(Checkpoint, AFlippedByteIsRefused) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  for (const char* name : {"trainable.safetensors", "optimizer.safetensors", "state.json"}) {
    store.save(example(5));
    store.load(5);
    flip_byte(store.path_of(5) / name, 3);
    const std::string error = error_of([&] { store.load(5); });
    EXPECT_NE(error.find(name), std::string::npos) << error;
    EXPECT_NE(error.find("SHA-256"), std::string::npos) << error;
  }
}

TEST(Checkpoint, TruncatedMissingOrMalformedFilesAreRefused) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  store.save(example(5));
  const fs::path state = store.path_of(5) / "state.json", manifest = store.path_of(5) / "manifest.json";
  fs::resize_file(state, 10);
  EXPECT_NE(error_of([&] { store.load(5); }).find("has 10 bytes, but the manifest says"), std::string::npos);
  fs::remove(state);
  EXPECT_NE(error_of([&] { store.load(5); }).find("state.json"), std::string::npos);
  for (const char* text :
       {"", "[]", "{}", "{\"format\": 2, \"files\": {}}", "{\"format\": 1, \"files\": {}}",
        "{\"format\": 1, \"files\": []}", "{\"format\": 1, \"files\": {\"trainable.safetensors\": 3}}"}) {
    write_file(manifest, text);
    EXPECT_NE(error_of([&] { store.load(5); }).find("manifest.json"), std::string::npos) << text;
  }
}

TEST(Checkpoint, KeepsTheLastAndTheBest) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path(), 2);
  for (int64_t step = 10; step <= 40; step += 10) {
    store.save(example(step));
    if (step == 20) store.set_best(20);
  }
  EXPECT_EQ(store.steps(), (std::vector<int64_t>{20, 30, 40}));
  store.set_best(40);
  store.save(example(50));
  EXPECT_EQ(store.steps(), (std::vector<int64_t>{40, 50}));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  store.save(example(7));
  Checkpoint again = example(7);
  again.state.samples = 1;
  store.save(again);
  EXPECT_EQ(store.load(7).state.samples, 1);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(Checkpoint, StepsBeyondEightDigitsSortByNumber) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  store.save(example(99'999'999));
  store.save(example(100'000'000));
  EXPECT_EQ(store.latest(), 100'000'000);
}

TEST(AssignTensors, CopiesInPlaceOrListsEveryMismatch) {
  const at::Tensor weight = at::zeros({2, 2}).requires_grad_(true), bias = at::zeros({2});
  assign_tensors({{"weight", at::ones({2, 2})}, {"bias", at::ones({2})}},
                 {{"weight", weight}, {"bias", bias}}, "step 1");
  EXPECT_TRUE(at::equal(weight, at::ones({2, 2})));
  EXPECT_TRUE(weight.requires_grad());
  const std::string error = error_of([&] {
    assign_tensors({{"weight", at::zeros({3})}, {"other", at::zeros({1})}},
                   {{"weight", weight}, {"bias", bias}}, "step 1");
  });
  EXPECT_NE(error.find("step 1: "), std::string::npos);
  EXPECT_NE(error.find("missing (1):\n    bias"), std::string::npos) << error;
  EXPECT_NE(error.find("unexpected (1):\n    other"), std::string::npos) << error;
  EXPECT_NE(error.find("weight: expected Float [2, 2], got Float [3]"), std::string::npos) << error;
  EXPECT_TRUE(at::equal(weight, at::ones({2, 2})));
}

/// A small noisy regression whose every random draw comes from one generator, as a training run's do.
struct TinyRun {
  at::Tensor weight = at::full({4, 4}, 0.5, at::kBFloat16).requires_grad_(true);
  at::Tensor bias = at::zeros({4}).requires_grad_(true);
  AdamW optimizer{{{"weight", weight, true}, {"bias", bias, false}}, {}};
  Random random{42};
  int64_t step = 0;

  at::Tensor noise(at::IntArrayRef shape) {
    at::Tensor out = at::empty(shape);
    float* values = out.mutable_data_ptr<float>();
    for (int64_t i = 0; i < out.numel(); ++i) values[i] = static_cast<float>(random.normal());
    return out;
  }
  double advance() {
    const at::Tensor input = noise({8, 4}), target = noise({8, 4});
    const at::Tensor loss = (at::matmul(input, weight.to(at::kFloat)) + bias - target).square().mean();
    loss.backward();
    clip_grad_norm(optimizer.gradients(), 1.0);
    optimizer.step(1e-2);
    optimizer.zero_grad();
    ++step;
    return loss.item<double>();
  }
  Checkpoint checkpoint() const {
    Checkpoint out;
    out.state.step = step;
    out.state.extra["rng"] = random.save();
    out.trainable = {{"weight", weight}, {"bias", bias}};
    for (const auto& [name, tensor] : optimizer.state_tensors()) out.optimizer.emplace(name, tensor);
    return out;
  }
  void resume(const Checkpoint& from) {
    step = from.state.step;
    random.restore(from.state.get<std::string>("rng"));
    assign_tensors(from.trainable, {{"weight", weight}, {"bias", bias}}, "checkpoint");
    optimizer.load_state(from.optimizer);
  }
};

TEST(Checkpoint, KilledAndResumedRunEqualsTheUninterruptedOneBitForBit) {
  const testing::TemporaryFolder folder;
  CheckpointStore store(folder.path());
  TinyRun whole;
  std::vector<double> losses;
  for (int step = 0; step < 30; ++step) {
    losses.push_back(whole.advance());
    if (whole.step % 8 == 0) store.save(whole.checkpoint());
  }
  TinyRun resumed;
  ASSERT_EQ(store.latest(), 24);
  resumed.resume(store.load(24));
  while (resumed.step < 30) {
    const auto at = static_cast<std::size_t>(resumed.step);
    EXPECT_EQ(resumed.advance(), losses[at]);
  }
  EXPECT_TRUE(at::equal(whole.weight, resumed.weight));
  EXPECT_TRUE(at::equal(whole.bias, resumed.bias));
}

}  // namespace
}  // namespace focus::train
