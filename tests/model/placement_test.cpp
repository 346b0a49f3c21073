#include "focus/model/placement.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::model {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::random_bases;
using testing::small_model;

std::string names(const std::vector<at::Device>& devices) {
  std::string out;
  for (const at::Device& device : devices) out += concat(out.empty() ? "" : " ", device.str());
  return out;
}

TEST(PlacementTest, OneDeviceSharesAndRanges) {
  const auto model = small_model(at::kFloat);  // five blocks of about the same size
  EXPECT_EQ(names(parse_placement("cpu", *model)), "cpu cpu cpu cpu cpu");
  EXPECT_EQ(names(parse_placement("cuda:0=0-2,cuda:1=3-4", *model)), "cuda:0 cuda:0 cuda:0 cuda:1 cuda:1");
  EXPECT_EQ(names(parse_placement("cuda:1=0,cpu=1-4", *model)), "cuda:1 cpu cpu cpu cpu");
  const auto shared = parse_placement("cuda:0,cuda:1", *model);
  EXPECT_EQ(shared.front().str(), "cuda:0");
  EXPECT_EQ(shared.back().str(), "cuda:1");
  for (std::size_t i = 1; i < shared.size(); ++i)
    EXPECT_GE(shared[i].index(), shared[i - 1].index()) << "in order";
  EXPECT_EQ(first_device("cuda:1=0,cpu=1-4").str(), "cuda:1");
}

TEST(PlacementTest, WhatMakesNoSenseIsRefused) {
  const auto model = small_model(at::kFloat);
  for (const char* text : {"", "gpu9x", "cuda:0,", "cuda:0=0-4,cuda:1", "cuda:0=0-3", "cuda:0=0-5",
                           "cuda:0=1-4", "cuda:0=0-2,cuda:1=2-4", "cuda:0=4-0", "cuda:0=a-b", "cuda:0=0-"}) {
    EXPECT_THROW(parse_placement(text, *model), ConfigError) << text;
  }
  if (!at::hasCUDA()) {
    EXPECT_THROW(resolve_devices("cuda:0"), DeviceError);
    EXPECT_EQ(resolve_devices("auto"), "cpu");
  }
  EXPECT_THROW(resolve_devices("meta"), ConfigError);
  EXPECT_EQ(resolve_devices("cpu,cpu"), "cpu,cpu");
}

// Two shares on one processor walk the same code as two cards.
TEST(PlacementTest, SplitOverTwoSharesItComputesTheSame) {
  const at::NoGradGuard guard;
  const auto model = small_model(at::kFloat);
  const Tensor tokens = random_bases(1, 60, 1), expected = model->forward(tokens);
  const std::string devices =
      at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 1 ? "cuda:0,cuda:1" : "cpu,cpu";
  model->place(parse_placement(devices, *model));
  cache::StreamState state;
  const Tensor first = model->forward(tokens.narrow(1, 0, 25).to(model->device()), &state);
  const Tensor second = model->forward(tokens.narrow(1, 25, 35).to(model->device()), &state);
  EXPECT_EQ(first.device(), model->device());
  EXPECT_LT(max_difference(at::cat({first, second}, 1).to(at::kCPU), expected), 1e-4);
}

TEST(PlacementTest, SplitOverTwoCards) {
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() < 2)
    GTEST_SKIP() << "needs two CUDA devices";
  const at::NoGradGuard guard;
  const auto model = small_model(at::kFloat);
  model->place(parse_placement("cuda:0=0-1,cuda:1=2-4", *model));
  EXPECT_EQ(model->block_device(1).index(), 0);
  EXPECT_EQ(model->block_device(2).index(), 1);
  EXPECT_EQ(model->forward(random_bases(1, 40, 1).to(model->device())).device(), model->device());
}

class RecomputeBlocks : public ::testing::TestWithParam<bool> {};

TEST_P(RecomputeBlocks, GradientsAreTheSame) {
  const bool streaming = GetParam();
  const auto model = small_model(at::kDouble);
  model->set_trainable(true);
  const Tensor tokens = random_bases(2, 48, 3), weighting = at::randn({2, 48, 128}, at::kDouble);
  const auto gradient = [&](bool recompute) {
    model->zero_grad();
    model->set_recompute(recompute);
    Tensor logits;
    if (streaming) {
      cache::StreamState state;
      const Tensor a = model->forward(tokens.narrow(1, 0, 20), &state),
                   b = model->forward(tokens.narrow(1, 20, 28), &state);
      logits = at::cat({a, b}, 1);
    } else {
      logits = model->forward(tokens);
    }
    (logits * weighting).sum().backward();
    std::vector<Tensor> out;
    for (const auto& p : model->parameters()) out.push_back(p.grad().flatten().clone());
    return at::cat(out);
  };
  const Tensor expected = gradient(false);
  EXPECT_LT(testing::relative_rms(gradient(true), expected), 1e-12);
  model->set_recompute(false);
}

/// Causal attention as without a hook, and how often it was asked for.
class CountingHook final : public AttentionHook {
 public:
  explicit CountingHook(bool repeatable) : repeatable_(repeatable) {}
  Tensor mix(const AttentionCall& call) override {
    ++calls;
    return attend(call.attention, call.u_BLD, call.position, nullptr);
  }
  bool repeatable() const override { return repeatable_; }
  std::unique_ptr<cache::LayerState> make_state(int64_t) override { return nullptr; }
  int calls = 0;

 private:
  bool repeatable_;
};

TEST(RecomputeUnderAHook, RunsAgainOnlyWhatMayBe) {
  const auto model = small_model(at::kDouble);
  const Tensor tokens = random_bases(2, 48, 3), weighting = at::randn({2, 48, 128}, at::kDouble);
  for (const std::string trained : {"first attention block", "all"}) {
    model->set_trainable(trained == "all");
    const auto block = model->attention_blocks().front();
    for (auto& p : model->block(block).parameters()) p.set_requires_grad(true);
    const auto gradient = [&](bool recompute, bool repeatable, int calls) {
      model->zero_grad();
      model->set_recompute(recompute);
      auto hook = std::make_shared<CountingHook>(repeatable);
      const std::weak_ptr<CountingHook> alive = hook;
      Tensor loss = (model->forward(tokens, nullptr, hook.get()) * weighting).sum();
      hook.reset();
      EXPECT_EQ(alive.expired(), !recompute || !repeatable) << trained;
      if (!alive.expired()) hook = alive.lock();
      loss.backward();
      if (hook) {
        EXPECT_EQ(hook->calls, calls) << trained;
      }
      loss.reset();
      hook.reset();
      EXPECT_TRUE(alive.expired());
      std::vector<Tensor> out;
      for (const auto& p : model->block(block).parameters()) out.push_back(p.grad().flatten().clone());
      return at::cat(out);
    };
    const Tensor expected = gradient(false, true, 2);
    EXPECT_LT(testing::relative_rms(gradient(true, true, 4), expected), 1e-12) << trained;
    EXPECT_TRUE(at::equal(gradient(true, false, 2), expected)) << trained;
  }
  model->set_recompute(false);
}

INSTANTIATE_TEST_SUITE_P(Modes, RecomputeBlocks, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "streaming" : "whole"; });

}  // namespace
}  // namespace focus::model
