// How an adapter is trained: stages, weights by need, random schedules, truncated back-propagation, planted
// copies.
#include <ATen/record_function.h>

#include <string_view>
#include <vector>

#include "adapter_training.h"
#include "focus/core/error.h"
#include "loop/step_loss.h"

namespace focus::train {
namespace {

using at::Tensor;

/// What the objective hands over for a batch.
std::vector<LossSum> pieces(Objective& objective, const Batch& batch) {
  std::vector<LossSum> out;
  objective.loss(batch, [&](const LossSum& piece) { out.push_back(piece); });
  return out;
}

LossSum whole_loss(Objective& objective, const Batch& batch) {
  const auto all = pieces(objective, batch);
  EXPECT_EQ(all.size(), 1U);
  return all.at(0);
}

class RecipeTest : public AdapterTrainingTest {
 protected:
  Batch batch(const Task& task, double copies = 0.0) const {
    data::SamplerConfig sampling = config().data;
    sampling.copies.probability = copies;
    sampling.copies.min_length = sampling.copies.max_length = 60;
    const data::SequenceSampler sampler(sampling, 5);
    const int64_t length = copies > 0 ? 160 : 64;
    return make_batch({sampler.sample(0, length), sampler.sample(1, length)},
                      task.model().backbone->vocabulary(), at::kCPU);
  }
  /// All gradients of a batch's loss, one behind the other. Parameters are moved off their start, where some
  /// maps are zero.
  Tensor gradient(Task& task, const Batch& batch) const {
    Tensor all;
    std::vector<Tensor> flat;
    auto parameters = task.model().parameters;
    {
      const at::NoGradGuard guard;
      at::manual_seed(3);
      for (auto& parameter : parameters) parameter.tensor.copy_(at::randn(parameter.tensor.sizes()) * 0.1);
    }
    task.objective(0, config().stages[0])->loss(batch, [](const LossSum& piece) {
      if (piece.sum.requires_grad()) piece.sum.backward();
    });
    for (auto& parameter : parameters) {
      flat.push_back(parameter.tensor.grad().defined() ? parameter.tensor.grad().flatten()
                                                       : at::zeros({parameter.tensor.numel()}));
      parameter.tensor.mutable_grad().reset();
    }
    return at::cat(flat);
  }
  static double relative(const Tensor& a, const Tensor& b) {
    return ((a - b).norm() / b.norm()).item<double>();
  }
};

/// Counts how often the host reads a number out of a tensor, which on a device waits for all work before it.
class ReadCounter {
 public:
  ReadCounter() : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(&see))) { reads = 0; }
  ~ReadCounter() { at::removeCallback(handle_); }
  static inline thread_local int64_t reads = 0;

 private:
  static std::unique_ptr<at::ObserverContext> see(const at::RecordFunction& called) {
    reads += std::string_view(called.name()) == "aten::_local_scalar_dense" ? 1 : 0;
    return nullptr;
  }
  at::CallbackHandle handle_;
};

TEST_F(RecipeTest, NothingIsReadBetweenTheBackwardPassesOfAStep) {
  TrainConfig pretraining = config();
  pretraining.task = TaskKind::pretrain;
  TrainConfig inline_paper = config();
  inline_paper.memory.focus.stream = compress::Stream::inline_tokens;
  inline_paper.memory.focus.unit = compress::UnitKind::paper;
  inline_paper.objective.focus_positions = true;
  inline_paper.objective.ce = 1;
  const auto ranks = distributed::one_rank();
  for (const TrainConfig& c : {pretraining, inline_paper}) {
    const auto task = make_task(c, at::kCPU);
    const auto reads = [&](std::size_t micro_batches) {
      std::vector<Batch> batches(micro_batches, batch(*task));
      const auto objective = task->objective(0, c.stages[0]);
      const ReadCounter counter;
      backward(*objective, batches, *ranks, task->model().parameters);
      return counter.reads;
    };
    EXPECT_EQ(reads(4), reads(1));
  }
  const ReadCounter counter;
  EXPECT_EQ(at::full({}, 2.5).item<double>(), 2.5);
  EXPECT_EQ(counter.reads, 1) << "what the counter sees";
}

TEST_F(RecipeTest, BackPropagationOverAllWindowsEqualsTheParallelGradient) {
  TrainConfig c = config();
  const auto parallel = make_task(c, at::kCPU);
  const Batch b = batch(*parallel);
  const Tensor expected = gradient(*parallel, b);
  c.execution = Execution::sequential;
  for (const int64_t windows : {0, 4, 9}) {  // 64 bases are four windows
    c.bptt_windows = windows;
    EXPECT_LT(relative(gradient(*make_task(c, at::kCPU), b), expected), 1e-4) << windows;
  }
  c.bptt_windows = 3;
  EXPECT_GT(relative(gradient(*make_task(c, at::kCPU), b), expected), 1e-2);
}

// 64 bases are four windows. The values are those of one piece: only the gradient is cut.
TEST_F(RecipeTest, EveryCutEndsAPieceThatStandsAlone) {
  TrainConfig c = config();
  c.execution = Execution::sequential;
  const auto sums = [&](int64_t bptt_windows) {
    c.bptt_windows = bptt_windows;
    const auto task = make_task(c, at::kCPU);
    std::vector<double> out;
    for (const LossSum& piece : pieces(*task->objective(0, c.stages[0]), batch(*task)))
      out.push_back(piece.sum.item<double>());
    return out;
  };
  const auto whole = sums(0), two = sums(2), three = sums(3);
  ASSERT_EQ(whole.size(), 1U);
  ASSERT_EQ(two.size(), 2U);
  ASSERT_EQ(three.size(), 2U);
  ASSERT_GT(two[1], 0);
  EXPECT_NEAR(two[0] + two[1], whole[0], 1e-5 * whole[0]);
  EXPECT_NEAR(three[0] + three[1], whole[0], 1e-5 * whole[0]);
}

// With two windows the stream is cut after the second: the third window's loss reaches no entry that it
// reads, the fourth's reaches those of the third.
TEST_F(RecipeTest, TruncationReallyCuts) {
  TrainConfig c = config();
  c.execution = Execution::sequential;
  c.bptt_windows = 2;
  const auto task = make_task(c, at::kCPU);
  const auto only = [&](int64_t begin) {
    Batch b = batch(*task);
    const Tensor kept =
        b.weights.narrow(1, begin, 15)
            .clone();  // the window's outputs but its last, which predicts the next window's first
    b.weights.zero_();
    b.weights.narrow(1, begin, 15).copy_(kept);
    return gradient(*task, b).norm().item<double>();
  };
  EXPECT_GT(only(17), 1e-6);
  EXPECT_EQ(only(33), 0.0);
  EXPECT_GT(only(49), 1e-6);
}

TEST_F(RecipeTest, MatchingThenEndToEndLowersTheValidationKl) {
  TrainConfig c = config();
  c.stages.resize(2);
  c.stages[0].kind = StageKind::match;
  c.stages[0].match.queries = 0;
  for (auto& stage : c.stages) {
    stage.length = 64;
    stage.steps = 20;
  }
  c.accumulation = 1;
  c.data.sources[0].regions = {"one:1-64"};
  c.validation.every = 20;
  c.validation.allow_overlap = true;
  c.validation.sequences = 1;
  c.validation.length = 64;
  c.validation.data.sources = c.data.sources;
  c.validate();
  run(c, "two");
  const auto kl = figures("two", "validation_kl"), output = figures("two", "match_output");
  ASSERT_EQ(kl.size(), 2U);
  EXPECT_LT(kl[1], kl[0]);
  ASSERT_EQ(output.size(), 20U);
  EXPECT_LT(output.back(), output.front());
  EXPECT_EQ(figures("two", "kl").size(), 20U) << "the second stage's";
}

TEST_F(RecipeTest, MatchingResumesBitEqualAndAccumulatesExactly) {
  TrainConfig c = config();
  c.stages[0].kind = StageKind::match;
  c.stages[0].match.queries = 4;
  c.optimizer.clip_norm = 0;
  expect_resumes_bit_equal(c);
  c.accumulation = 1;
  c.stages[0].batch = 2;
  run(c, "batched");
  const auto a = losses("whole"), b = losses("batched");
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(a[i], b[i], 1e-5 * (1 + std::abs(a[i]))) << i;
}

TEST_F(RecipeTest, WeightsByNeedAccumulateExactlyAndMatter) {
  TrainConfig c = config();
  c.optimizer.clip_norm = 0;
  c.stages[0].steps = 3;
  run(c, "plain");
  c.objective.need.weight = 20;
  run(c, "accumulated");
  c.accumulation = 1;
  c.stages[0].batch = 2;
  run(c, "batched");
  const auto plain = losses("plain"), a = losses("accumulated"), b = losses("batched");
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-5 * (1 + std::abs(a[i]))) << i;
    EXPECT_GT(a[i], 1.01 * plain[i]) << "positions that need memory lose most, and count more";
  }
}

TEST_F(RecipeTest, RandomSchedulesAreLoggedAndResumeBitEqual) {
  TrainConfig c = config();
  c.random.k_range = {3, 8};
  c.random.layers = 0.5;
  c.random.window = {{6, 12}};
  expect_resumes_bit_equal(c);
  const auto k = figures("whole", "k"), window = figures("whole", "window");
  ASSERT_EQ(k.size(), 12U);
  EXPECT_GT(*std::max_element(k.begin(), k.end()), *std::min_element(k.begin(), k.end()));
  for (std::size_t i = 0; i < k.size(); ++i) {
    EXPECT_TRUE(k[i] >= 3 && k[i] <= 8) << k[i];
    EXPECT_EQ(window[i], i < 6 ? 12 : 16);
  }
  EXPECT_EQ(figures("cut", "k"), k);
}

TEST_F(RecipeTest, CopiesReachTheObjectiveAndAreReported) {
  const auto task = make_task(config(), at::kCPU);
  const auto objective = task->objective(0, config().stages[0]);
  const Batch b = batch(*task, 1.0);
  const Tensor offset = b.copy_offset.narrow(1, 1, 159);
  ASSERT_GT(offset.ge(32).sum().item<int64_t>(), 0);
  const LossSum sum = whole_loss(*objective, b);
  ASSERT_EQ(sum.means.size(), 1U);
  EXPECT_EQ(sum.means[0].name, "copy_kl");
  EXPECT_GT(sum.means[0].sum.item<double>(), 0);
  // Copies of 60 bases lie behind the first window here, so that all of their weight counts.
  EXPECT_NEAR(sum.means[0].weight.item<double>(),
              (b.weights.narrow(1, 1, 159) * offset.ge(32)).narrow(1, 16, 143).sum().item<double>(), 1e-4);
  EXPECT_EQ(whole_loss(*objective, batch(*task)).means[0].weight.item<double>(), 0);
}

TEST_F(RecipeTest, StagesAndSchedulesThatMakeNoSenseAreRefused) {
  const auto refused = [&](const std::function<void(TrainConfig&)>& change) {
    TrainConfig c = config();
    change(c);
    EXPECT_THROW(c.validate(), ConfigError);
  };
  refused([](TrainConfig& c) { c.stages[0].match.queries = 3; });
  refused([](TrainConfig& c) { c.objective.need.limit = 1; });
  refused([](TrainConfig& c) { c.random.k = {20}; });
  refused([](TrainConfig& c) { c.random.window = {{4, 64}}; });  // as long as the sequences
  const auto match_refused = [&](const std::function<void(TrainConfig&)>& change) {
    refused([&](TrainConfig& c) {
      c.stages[0].kind = StageKind::match;
      c.validate();
      change(c);
    });
  };
  match_refused([](TrainConfig& c) { c.stages[0].match.mass = c.stages[0].match.output = 0; });
  match_refused([](TrainConfig& c) { c.objective.ce = 1; });
  match_refused([](TrainConfig& c) { c.execution = Execution::sequential; });
  match_refused([](TrainConfig& c) { c.recompute = true; });
  match_refused([](TrainConfig& c) { c.memory.focus.history = compress::History::window; });
}

}  // namespace
}  // namespace focus::train
