// Entries that are parameters of one sequence: shown like those of the unit they came from, in both
// executions.
#include "focus/compress/focus/stored_entries.h"

#include <gtest/gtest.h>

#include "focus/compress/compressed_model.h"
#include "focus/core/error.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::random_bases;
using testing::small_model;

constexpr int64_t kLength = 75;  // several windows of 16 bases and a piece of one

MemoryConfig closed_form() {
  MemoryConfig c;
  c.window.size = 16;
  c.focus.k = 5;
  c.focus.fitted.corrections = false;
  c.focus.fitted.reference_stride = 2;
  return c;
}

std::vector<MemoryConfig> memories() {
  std::vector<MemoryConfig> out(5, closed_form());
  out[1].focus.eviction = Eviction::rolling;
  out[2].focus.local = Local::kmer;
  out[3].focus.tail = 5;
  out[3].focus.sinks = 5;
  out[4].focus.entries_per_kmer = 2;
  out[4].focus.layers = {4};
  return out;
}

Tensor streamed(const CompressedModel& model, const Tensor& tokens, int64_t chunk) {
  CompressedStream stream;
  std::vector<Tensor> parts;
  for (int64_t t = 0; t < tokens.size(1); t += chunk)
    parts.push_back(model.forward(tokens.narrow(1, t, std::min(chunk, tokens.size(1) - t)), stream).bases);
  return at::cat(parts, 1);
}

const StoredUnit& stored_unit(const FocusAdapter& adapter, int64_t block) {
  return dynamic_cast<const StoredUnit&>(*adapter.unit(block));
}

TEST(StoredEntriesTest, ShowWhatTheirSourceMade) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const Tensor tokens = random_bases(2, kLength, 3);
  for (const MemoryConfig& memory : memories()) {
    const auto source = std::make_shared<FocusAdapter>(*backbone, memory, 0);
    const CompressedModel fitted(backbone, source),
        stored(backbone, store_entries(backbone, *source, tokens));
    EXPECT_LT(max_difference(stored.parallel(tokens).bases, fitted.parallel(tokens).bases), 1e-12);
  }
}

TEST(StoredEntriesTest, StreamLikeTheParallelExecutionWhereverTheyMove) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const Tensor tokens = random_bases(2, kLength, 3);
  for (const MemoryConfig& memory : memories()) {
    const FocusAdapter source(*backbone, memory, 0);
    const auto adapter = store_entries(backbone, source, tokens);
    const CompressedModel model(backbone, adapter);
    const Tensor before = model.parallel(tokens).bases;
    testing::perturb(*adapter, 0.5, 7);
    const Tensor after = model.parallel(tokens).bases;
    EXPECT_GT(max_difference(after, before), 1e-3);
    EXPECT_EQ(max_difference(after.narrow(1, 0, 5), before.narrow(1, 0, 5)), 0.0);
    for (const int64_t chunk : {1, 16, 23})
      EXPECT_LT(max_difference(streamed(model, tokens, chunk), after), 1e-9) << "chunk " << chunk;
  }
}

TEST(StoredEntriesTest, GradientsReachEveryEntryThatIsSeen) {
  const auto backbone = small_model(at::kDouble);
  backbone->set_trainable(false);
  const Tensor tokens = random_bases(1, kLength, 3);
  const auto adapter = store_entries(backbone, FocusAdapter(*backbone, closed_form(), 0), tokens);
  for (auto& parameter : adapter->parameters()) parameter.set_requires_grad(true);
  at::manual_seed(5);
  (CompressedModel(backbone, adapter).parallel(tokens).bases * at::randn({1, kLength, 16}, at::kDouble))
      .sum()
      .backward();
  const int64_t entries = 4 * 4;  // of four closed windows, each 5 + 5 + 5 + 1 bases
  for (const int64_t block : {2, 4}) {
    const StoredUnit& unit = stored_unit(*adapter, block);
    ASSERT_EQ(unit.key.size(2), entries);
    for (const Tensor& t : {unit.key, unit.value})
      EXPECT_GT(t.grad().abs().amax({0, 1, 3}).min().item<double>(), 0.0) << block;
    EXPECT_GT(unit.beta.grad().abs().amax({0, 1}).min().item<double>(), 0.0) << block;
  }
}

TEST(StoredEntriesTest, BelongToOneSequence) {
  const at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const FocusAdapter source(*backbone, closed_form(), 0);
  const CompressedModel model(backbone, store_entries(backbone, source, random_bases(1, kLength, 3)));
  EXPECT_THROW(model.parallel(random_bases(1, kLength + 16, 3)), InternalError);
  EXPECT_THROW(model.parallel(random_bases(2, kLength, 3)), InternalError);
  MemoryConfig paper = closed_form();
  paper.focus = {};
  paper.focus.k = 5;
  paper.focus.unit = UnitKind::paper;
  EXPECT_THROW(store_entries(backbone, FocusAdapter(*backbone, paper, 0), random_bases(1, kLength, 3)),
               InternalError);
}

}  // namespace
}  // namespace focus::compress
