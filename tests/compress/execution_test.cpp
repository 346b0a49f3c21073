// The two executions, all streams, visibilities and units: same numbers, same gradients, no look ahead,
// really dropped.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>
#include <set>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::perturbed_adapter;
using testing::random_bases;
using testing::relative_rms;
using testing::small_llama;
using testing::small_model;

enum class Architecture { striped_hyena, llama };

std::shared_ptr<model::Backbone> backbone_of(Architecture architecture, at::ScalarType type) {
  if (architecture == Architecture::llama) return small_llama(type);
  return small_model(type);
}

struct Mode {
  Stream stream;
  Local local;
  History history;
  UnitKind unit;
  FocusSees focus_sees = FocusSees::kmer;
  Update update = Update::residual;
  EntrySource entry = EntrySource::backbone;
  Anchor anchor = Anchor::end;
  bool bias = true;
  WindowUnit window_unit = WindowUnit::bases;
  Remainder remainder = Remainder::own;
  int64_t rank = 0;
  std::vector<int64_t> layers = {};
  Architecture architecture = Architecture::striped_hyena;

  MemoryConfig config() const {
    MemoryConfig c;
    c.window = {window_unit == WindowUnit::focus ? 3 : 16, window_unit, remainder};
    c.focus.k = 5;
    c.focus.stream = stream;
    c.focus.local = local;
    c.focus.history = history;
    c.focus.unit = unit;
    c.focus.paper = {focus_sees, update, entry};
    c.focus.anchor = anchor;
    c.focus.bias = bias;
    c.focus.rank = rank;
    c.focus.layers = layers;
    c.focus.fitted.reference_stride = unit == UnitKind::fitted ? 2 : 4;
    return c;
  }
};

std::string name_of(const Mode& m) {
  std::string out = m.stream == Stream::side ? "side" : "inline";
  out += m.local == Local::window ? "_localwindow" : "_localkmer";
  out += m.history == History::all      ? "_historyall"
         : m.history == History::window ? "_historywindow"
                                        : "_historynone";
  out += m.unit == UnitKind::fitted ? "_fitted" : "_paper";
  if (m.focus_sees == FocusSees::window) out += "_seeswindow";
  if (m.update == Update::replace) out += "_replace";
  if (m.entry == EntrySource::own) out += "_own";
  if (m.anchor != Anchor::end) out += m.anchor == Anchor::start ? "_start" : "_center";
  if (!m.bias) out += "_nobias";
  if (m.window_unit == WindowUnit::focus) out += "_focusunit";
  if (m.remainder != Remainder::own) out += m.remainder == Remainder::merge ? "_merge" : "_drop";
  if (m.rank > 0) out += "_lowrank";
  if (!m.layers.empty()) out += "_onelayer";
  if (m.architecture == Architecture::llama) out += "_llama";
  return out;
}

std::vector<Mode> all_modes() {
  std::vector<Mode> out;
  for (const auto stream : {Stream::side, Stream::inline_tokens}) {
    for (const auto local : {Local::window, Local::kmer}) {
      for (const auto history : {History::all, History::window, History::none}) {
        for (const auto unit : {UnitKind::fitted, UnitKind::paper})
          out.push_back({stream, local, history, unit});
      }
    }
    const Mode paper{stream, Local::window, History::all, UnitKind::paper},
        fitted{stream, Local::window, History::all, UnitKind::fitted};
    const auto with = [&](Mode m, const std::function<void(Mode&)>& change) {
      change(m);
      out.push_back(m);
    };
    with(paper, [](Mode& m) { m.focus_sees = FocusSees::window; });
    with(paper, [](Mode& m) {
      m.update = Update::replace;
      m.entry = EntrySource::own;
    });
    with(paper, [](Mode& m) { m.bias = false; });
    with(paper, [](Mode& m) { m.rank = 2; });
    with(fitted, [](Mode& m) { m.rank = 2; });
    with(paper, [](Mode& m) { m.layers = {4}; });
    with(fitted, [](Mode& m) { m.layers = {2}; });
    for (const auto remainder : {Remainder::merge, Remainder::drop}) {
      with(fitted, [&](Mode& m) { m.remainder = remainder; });
      with(paper, [&](Mode& m) { m.remainder = remainder; });
      with(paper, [&](Mode& m) {
        m.remainder = remainder;
        m.local = Local::kmer;
      });
    }
    for (const auto unit : {UnitKind::fitted, UnitKind::paper}) {
      // Section 3.2 as written: windows of Focus tokens, own k-mer, shared boundary.
      with({stream, Local::kmer, History::window, unit}, [](Mode& m) { m.window_unit = WindowUnit::focus; });
      with({stream, Local::window, History::all, unit}, [](Mode& m) { m.window_unit = WindowUnit::focus; });
    }
    if (stream == Stream::side) {
      with(paper, [](Mode& m) { m.anchor = Anchor::start; });
      with(fitted, [](Mode& m) { m.anchor = Anchor::center; });
    }
    // Grouped queries, in what depends on heads.
    for (Mode m : {fitted, paper, Mode{stream, Local::kmer, History::window, UnitKind::paper}}) {
      m.architecture = Architecture::llama;
      out.push_back(m);
      with(m, [](Mode& changed) { changed.rank = 2; });
      with(m, [](Mode& changed) { changed.layers = {1}; });
    }
    with(paper, [](Mode& m) {
      m.architecture = Architecture::llama;
      m.focus_sees = FocusSees::window;
      m.entry = EntrySource::own;
      m.bias = false;
    });
  }
  return out;
}

constexpr int64_t kLength = 75;  // several windows and a piece of one

class ExecutionTest : public ::testing::TestWithParam<Mode> {
 protected:
  Tensor stream_logits(const CompressedModel& model, const Tensor& tokens, int64_t chunk) const {
    CompressedStream stream;
    std::vector<Tensor> parts;
    for (int64_t t = 0; t < tokens.size(1); t += chunk) {
      parts.push_back(model.backbone().unembed(
          model.forward(tokens.narrow(1, t, std::min(chunk, tokens.size(1) - t)), stream).bases));
    }
    return at::cat(parts, 1);
  }
  Tensor parallel_logits(const CompressedModel& model, const Tensor& tokens) const {
    return model.backbone().unembed(model.parallel(tokens).bases);
  }
};

TEST_P(ExecutionTest, SequentialEqualsParallelLogits) {
  at::NoGradGuard guard;
  for (const auto type : {at::kDouble, at::kFloat}) {
    const auto backbone = backbone_of(GetParam().architecture, type);
    const CompressedModel model(backbone, perturbed_adapter(*backbone, GetParam().config()));
    const Tensor tokens = random_bases(2, kLength, 3), expected = parallel_logits(model, tokens);
    const double scale = expected.abs().max().item<double>();
    for (const int64_t chunk : {1, 16, 23}) {
      EXPECT_LT(max_difference(stream_logits(model, tokens, chunk), expected),
                (type == at::kDouble ? 1e-9 : 1e-5) * scale)
          << "chunk " << chunk;
    }
  }
}

TEST_P(ExecutionTest, SequentialEqualsParallelGradients) {
  const auto backbone = backbone_of(GetParam().architecture, at::kDouble);
  const auto adapter = perturbed_adapter(*backbone, GetParam().config());
  const CompressedModel model(backbone, adapter);
  const Tensor tokens = random_bases(1, kLength, 4);
  at::manual_seed(5);
  const Tensor weighting = at::randn({kLength, 128}, at::kDouble);
  const auto gradient = [&](const std::function<Tensor()>& logits) {
    adapter->zero_grad();
    (logits()[0] * weighting).sum().backward();
    std::map<std::string, Tensor> out;
    for (const auto& item : adapter->named_parameters()) {
      if (item.value().grad().defined()) out.emplace(item.key(), item.value().grad().clone());
    }
    return out;
  };
  if (GetParam().history == History::none && GetParam().stream == Stream::side) {
    // Nothing is retained, so nothing can be trained.
    EXPECT_FALSE(parallel_logits(model, tokens).requires_grad());
    EXPECT_FALSE(stream_logits(model, tokens, 16).requires_grad());
    return;
  }
  const auto parallel = gradient([&] { return parallel_logits(model, tokens); });
  const auto sequential = gradient([&] { return stream_logits(model, tokens, 16); });
  backbone->set_recompute(true);
  const auto recomputed = gradient([&] { return parallel_logits(model, tokens); });
  ASSERT_FALSE(parallel.empty());
  ASSERT_EQ(parallel.size(), sequential.size());
  ASSERT_EQ(parallel.size(), recomputed.size());
  for (const auto& [name, value] : parallel) {
    // Focus states of the last layer reach no base where no entry is read: their gradient is zero in both.
    EXPECT_LE(max_difference(sequential.at(name), value), 1e-6 * value.abs().max().item<double>()) << name;
    EXPECT_LE(max_difference(recomputed.at(name), value), 1e-9 * value.abs().max().item<double>()) << name;
  }
}

/// All nodes behind a tensor that its graph owns (parameters own theirs).
std::vector<std::weak_ptr<torch::autograd::Node>> graph_of(const Tensor& tensor) {
  std::vector<std::weak_ptr<torch::autograd::Node>> out;
  std::set<const torch::autograd::Node*> seen;
  std::vector<std::shared_ptr<torch::autograd::Node>> next = {tensor.grad_fn()};
  while (!next.empty()) {
    const auto node = next.back();
    next.pop_back();
    if (node == nullptr || !seen.insert(node.get()).second) continue;
    if (dynamic_cast<const torch::autograd::AccumulateGrad*>(node.get()) == nullptr) out.emplace_back(node);
    for (const auto& edge : node->next_edges()) next.push_back(edge.function);
  }
  return out;
}

// What a block keeps to run again must not keep the graph that the block is part of: every step of training
// would leave its own behind.
TEST_P(ExecutionTest, TheGraphGoesWithItsResult) {
  const auto backbone = backbone_of(GetParam().architecture, at::kFloat);
  const CompressedModel model(backbone, perturbed_adapter(*backbone, GetParam().config()));
  const Tensor tokens = random_bases(1, kLength, 5);
  if (GetParam().history == History::none && GetParam().stream == Stream::side) {
    EXPECT_FALSE(parallel_logits(model, tokens).requires_grad())
        << "nothing is retained, so there is no graph";
    return;
  }
  for (const bool recompute : {false, true}) {
    backbone->set_recompute(recompute);
    Tensor logits = parallel_logits(model, tokens);
    const auto graph = graph_of(logits);
    EXPECT_GT(graph.size(), 5U);
    logits.sum().backward();
    logits.reset();
    const auto left =
        std::count_if(graph.begin(), graph.end(), [](const auto& node) { return !node.expired(); });
    EXPECT_EQ(left, 0) << "of " << graph.size() << " nodes, recompute " << recompute;
  }
}

// Changing base t changes no output before t; and it does change a later one.
TEST_P(ExecutionTest, NoOutputSeesALaterBase) {
  at::NoGradGuard guard;
  const auto backbone = backbone_of(GetParam().architecture, at::kDouble);
  const CompressedModel model(backbone, perturbed_adapter(*backbone, GetParam().config()));
  const Tensor tokens = random_bases(1, kLength, 6), before = parallel_logits(model, tokens);
  for (const int64_t t : {0, 4, 15, 16, 33, 47}) {
    Tensor changed = tokens.clone();
    changed[0][t] = changed[0][t].item<int64_t>() == 'A' ? int64_t{'C'} : int64_t{'A'};
    const Tensor after = parallel_logits(model, changed);
    if (t > 0) {
      EXPECT_LT(max_difference(after.narrow(1, 0, t), before.narrow(1, 0, t)), 1e-9) << "base " << t;
    }
    EXPECT_GT(max_difference(after.narrow(1, t, kLength - t), before.narrow(1, t, kLength - t)), 1e-6)
        << "base " << t;
  }
}

// Every parameter has a gradient that came through entries retained over at least two windows.
TEST_P(ExecutionTest, EveryFocusParameterHasAGradientThroughRetainedEntries) {
  const Mode& mode = GetParam();
  const auto backbone = backbone_of(GetParam().architecture, at::kDouble);
  const auto adapter = perturbed_adapter(*backbone, mode.config());
  const CompressedModel model(backbone, adapter);
  const Tensor tokens = random_bases(1, kLength, 7);
  CompressedStream stream;
  // Three windows without looking at their outputs, then a loss on what follows.
  const int64_t past = model.plan().window(2).end;
  for (int64_t t = 0; t < past; t += 16)
    model.forward(tokens.narrow(1, t, std::min<int64_t>(16, past - t)), stream);
  const Tensor logits =
      model.backbone().unembed(model.forward(tokens.narrow(1, past, kLength - past), stream).bases);
  if (mode.history == History::none) {
    EXPECT_EQ(model.memory_use(stream).entries, 0);
    return;
  }
  at::manual_seed(8);
  (logits * at::randn(logits.sizes(), logits.options())).sum().backward();
  // Far above what rounding in sums of the largest gradient could leave where there is none.
  double largest = 0;
  for (const auto& item : adapter->named_parameters()) {
    ASSERT_TRUE(item.value().grad().defined()) << item.key();
    largest = std::max(largest, item.value().grad().abs().max().item<double>());
  }
  for (const auto& item : adapter->named_parameters())
    EXPECT_GT(item.value().grad().abs().max().item<double>(), std::max(1e-12, 1e-10 * largest)) << item.key();
}

INSTANTIATE_TEST_SUITE_P(Modes, ExecutionTest, ::testing::ValuesIn(all_modes()),
                         [](const auto& mode) { return name_of(mode.param); });

// ---- What only holds for some modes.

Mode side_fitted() { return {Stream::side, Local::window, History::all, UnitKind::fitted}; }

TEST(FirstWindowTest, SideStreamLeavesASequenceOfOneWindowBitEqual) {
  at::NoGradGuard guard;
  for (const auto unit : {UnitKind::fitted, UnitKind::paper}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto backbone = small_model(type);
      Mode mode = side_fitted();
      mode.unit = unit;
      const CompressedModel model(backbone, perturbed_adapter(*backbone, mode.config()));
      const Tensor tokens = random_bases(2, 16, 9), expected = backbone->forward(tokens);
      CompressedStream stream;
      EXPECT_TRUE(at::equal(backbone->unembed(model.forward(tokens, stream).bases), expected));
      EXPECT_TRUE(at::equal(backbone->unembed(model.parallel(tokens).bases), expected));
    }
  }
}

TEST(FirstWindowTest, SideStreamLeavesTheFirstWindowOfALongerSequenceEqualToRounding) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const CompressedModel model(backbone, perturbed_adapter(*backbone, side_fitted().config()));
  const Tensor tokens = random_bases(1, kLength, 10), expected = backbone->forward(tokens);
  const Tensor got = backbone->unembed(model.parallel(tokens).bases);
  EXPECT_LT(max_difference(got.narrow(1, 0, 16), expected.narrow(1, 0, 16)), 1e-10);
  EXPECT_GT(max_difference(got.narrow(1, 16, kLength - 16), expected.narrow(1, 16, kLength - 16)), 1e-6);
}

class ArchitectureTest : public ::testing::TestWithParam<Architecture> {};

// With one entry per base the fit is exact: key itself, log-mass 0, value itself.
TEST_P(ArchitectureTest, KOneReproducesFullMemory) {
  at::NoGradGuard guard;
  const auto backbone = backbone_of(GetParam(), at::kFloat);
  Mode mode = side_fitted();
  MemoryConfig config = mode.config();
  config.focus.k = 1;
  config.focus.fitted.corrections = false;
  config.focus.rank = FocusConfig{}.rank;
  const CompressedModel model(backbone, std::make_shared<FocusAdapter>(*backbone, config, 0));
  const Tensor tokens = random_bases(1, kLength, 11), expected = backbone->forward(tokens);
  const double scale = expected.abs().max().item<double>();
  CompressedStream stream;
  EXPECT_LT(max_difference(backbone->unembed(model.forward(tokens, stream).bases), expected), 1e-4 * scale);
  EXPECT_LT(max_difference(backbone->unembed(model.parallel(tokens).bases), expected), 1e-4 * scale);
}

// The fit does what it is for: with k = 5 its error is below that of dropping everything.
TEST_P(ArchitectureTest, FittedEntriesAreCloserToFullThanNone) {
  at::NoGradGuard guard;
  const auto backbone = backbone_of(GetParam(), at::kDouble);
  MemoryConfig config = side_fitted().config();
  config.focus.fitted.corrections = false;
  config.focus.rank = FocusConfig{}.rank;
  const auto adapter = std::make_shared<FocusAdapter>(*backbone, config, 0);
  const CompressedModel focus(backbone, adapter);
  const auto none = make_memory("state_only", backbone, config);
  const Tensor tokens = random_bases(4, kLength, 12),
               expected = backbone->forward(tokens).narrow(1, 16, kLength - 16);
  CompressedStream a, b;
  const double with =
      relative_rms(backbone->unembed(focus.forward(tokens, a).bases).narrow(1, 16, kLength - 16), expected);
  const double without =
      relative_rms(backbone->unembed(none->forward(tokens, b).bases).narrow(1, 16, kLength - 16), expected);
  EXPECT_LT(with, 0.9 * without) << with << " against " << without;
}

TEST_P(ArchitectureTest, KeptEntriesAndBytesAreWhatEq4Says) {
  at::NoGradGuard guard;
  const auto backbone = backbone_of(GetParam(), at::kFloat);
  const auto layers = static_cast<int64_t>(backbone->attention_blocks().size());
  const CompressedModel model(backbone, perturbed_adapter(*backbone, side_fitted().config()));
  CompressedStream stream;
  const Tensor tokens = random_bases(1, 200, 13);
  for (int64_t t = 0; t < 200; ++t) {
    model.forward(tokens.narrow(1, t, 1), stream);
    const MemoryUse use = model.memory_use(stream);
    const int64_t open = (t + 1) % 16;
    EXPECT_EQ(use.entries + open, model.plan().kept_entries(t + 1)) << t;
    EXPECT_EQ(use.retained_bytes, layers * use.entries * focus_entry_bytes(*backbone, model.config())) << t;
    if (open == 0) {
      EXPECT_EQ(use.open_bytes, 0) << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, ArchitectureTest,
                         ::testing::Values(Architecture::striped_hyena, Architecture::llama),
                         [](const auto& p) {
                           return p.param == Architecture::llama ? "llama" : "striped_hyena";
                         });

TEST(MemoryTest, GroupedQueriesKeepOneKeyAndValuePerGroup) {
  const auto backbone = small_llama(at::kFloat);
  // 2 key/value heads of 6 channels, key and value in fp32, beta.
  EXPECT_EQ(focus_entry_bytes(*backbone, side_fitted().config()), 2 * (2 * 6 * 4 + 4));
}

TEST(MemoryTest, HistoryOfOneWindowStaysConstant) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  Mode mode{Stream::side, Local::kmer, History::window, UnitKind::paper};
  mode.window_unit = WindowUnit::focus;
  const CompressedModel model(backbone, perturbed_adapter(*backbone, mode.config()));
  CompressedStream stream;
  const Tensor tokens = random_bases(1, 400, 14);
  int64_t most = 0;
  for (int64_t t = 0; t < 400; ++t) {
    model.forward(tokens.narrow(1, t, 1), stream);
    most = std::max(most, model.memory_use(stream).entries);
  }
  EXPECT_LE(most, 3);  // W Focus tokens, the shared one among them
}

TEST(StreamTest, AForkLeavesItsOriginAlone) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const CompressedModel model(backbone, perturbed_adapter(*backbone, side_fitted().config()));
  const Tensor tokens = random_bases(1, 40, 15), other = random_bases(1, 30, 16);
  CompressedStream stream;
  model.forward(tokens, stream);
  CompressedStream fork = stream.clone();
  const Tensor first = model.forward(other, fork).bases;
  model.forward(tokens, fork);
  EXPECT_TRUE(at::equal(model.forward(other, stream).bases, first));
}

}  // namespace
}  // namespace focus::compress
