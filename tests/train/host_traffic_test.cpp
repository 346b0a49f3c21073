// What a training step asks of the host: a few figures, however many windows its sequences have. On a card
// each of these would be a wait.
#include <gtest/gtest.h>

#include "adapter_training.h"
#include "loop/step_loss.h"
#include "support/host_traffic.h"

namespace focus::train {
namespace {

using testing::HostTraffic;

struct Kind {
  const char* name;
  compress::UnitKind unit;
  StageKind stage;
  Execution execution = Execution::parallel;
  bool recompute = false;
};

class TrainingTrafficTest : public AdapterTrainingTest, public ::testing::WithParamInterface<Kind> {
 protected:
  struct Counted {
    int64_t reads, writes;
    std::string names;
  };
  /// Of the second of two steps on sequences of that length.
  Counted step(int64_t length) const {
    TrainConfig c = config();
    c.memory.focus.unit = GetParam().unit;
    c.stages[0].kind = GetParam().stage;
    c.stages[0].length = length;
    c.execution = GetParam().execution;
    c.recompute = GetParam().recompute;
    const auto task = make_task(c, at::kCPU);
    AdamW optimizer(task->model().parameters, c.optimizer);
    const auto ranks = distributed::one_rank();
    const auto& vocabulary = task->model().backbone->vocabulary();
    const auto one = [&](int64_t at) {
      const auto objective = task->objective(at, c.stages[0]);
      data::Sample sample;
      for (int64_t i = 0; i < length; ++i)
        sample.letters.push_back(static_cast<uint8_t>("ACGT"[(i * i / 7 + i) % 4]));
      sample.weights.assign(static_cast<std::size_t>(length), 1.F);
      sample.weights[0] = 0;
      sample.copy_offset.assign(static_cast<std::size_t>(length), -1);
      std::vector<Batch> batches = {make_batch({sample}, vocabulary, at::kCPU),
                                    make_batch({sample}, vocabulary, at::kCPU)};
      optimizer.zero_grad();
      backward(*objective, batches, *ranks, optimizer.parameters());
      clip_grad_norm(optimizer.gradients(), 1.0);
      optimizer.step(1e-3);
    };
    one(0);
    const HostTraffic traffic(int64_t{1} << 40);
    one(1);
    return {traffic.reads(), traffic.writes(), traffic.names()};
  }
};

TEST_P(TrainingTrafficTest, IsTheSameForAnyNumberOfWindows) {
  const Counted few = step(64), many = step(192);
  EXPECT_EQ(few.reads, many.reads) << few.names << " against " << many.names;
  EXPECT_EQ(few.writes, many.writes) << few.names << " against " << many.names;
  EXPECT_LE(many.reads, 4) << many.names;  // divisor, losses, and the means with their weights
  // Matching makes the tables of its windows once for each batch.
  EXPECT_LE(many.writes, GetParam().stage == StageKind::match ? 2 * 10 : 0) << many.names;
}

INSTANTIATE_TEST_SUITE_P(
    Objectives, TrainingTrafficTest,
    ::testing::Values(
        Kind{"match_fitted", compress::UnitKind::fitted, StageKind::match},
        Kind{"match_paper", compress::UnitKind::paper, StageKind::match},
        Kind{"parallel_fitted", compress::UnitKind::fitted, StageKind::end_to_end},
        Kind{"parallel_paper", compress::UnitKind::paper, StageKind::end_to_end},
        Kind{"recomputed", compress::UnitKind::fitted, StageKind::end_to_end, Execution::parallel, true},
        Kind{"sequential", compress::UnitKind::fitted, StageKind::end_to_end, Execution::sequential}),
    [](const auto& p) { return p.param.name; });

}  // namespace
}  // namespace focus::train
