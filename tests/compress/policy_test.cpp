#include "focus/compress/rivals/rivals.h"

#include <gtest/gtest.h>

#include "focus/compress/memory/memory_factory.h"
#include "focus/core/error.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;
using testing::random_bases;
using testing::small_model;

MemoryConfig config_of(int64_t window, int64_t k) {
  MemoryConfig c;
  c.window.size = window;
  c.focus.k = k;
  return c;
}

struct Measured {
  Tensor logits;
  MemoryUse use;
  std::vector<cache::TensorMap> saved;  // of every layer
};

Measured run(const std::shared_ptr<model::Backbone>& backbone, const std::string& policy,
             const MemoryConfig& config, const Tensor& tokens, int64_t chunk) {
  const auto made = make_memory(policy, backbone, config);
  const CompressedModel& model = *made;
  CompressedStream stream;
  std::vector<Tensor> parts;
  for (int64_t t = 0; t < tokens.size(1); t += chunk)
    parts.push_back(backbone->unembed(
        model.forward(tokens.narrow(1, t, std::min(chunk, tokens.size(1) - t)), stream).bases));
  Measured out{at::cat(parts, 1), model.memory_use(stream), {}};
  for (const auto& layer : stream.backbone.layers) out.saved.push_back(layer->save());
  return out;
}

/// Rivals that drop more than the budget asks for, whatever k.
bool drops_more(const std::string& policy) { return policy == "state_only" || policy == "window_mass"; }
/// Rivals that keep every base, whatever the budget.
bool keeps_all(const std::string& policy) { return policy == "full" || policy.starts_with("quantised"); }
bool quantises(const std::string& policy) {
  return policy.find("quant") != std::string::npos || policy == "mixture";
}

/// Bytes that Focus entries would take after `windows` windows, all layers.
int64_t budget_after(const model::Backbone& backbone, const MemoryConfig& config, int64_t windows,
                     int64_t batch = 1) {
  return static_cast<int64_t>(backbone.attention_blocks().size()) *
         WindowPlan(config.window, config.focus.k).kmers_before(windows) *
         focus_entry_bytes(backbone, config) * batch;
}

std::vector<std::string> names() {
  std::vector<std::string> out;
  for (const RetentionPolicy& policy : rivals()) out.push_back(policy.name);
  out.insert(out.end(), {"mixture", "quantised_int8", "quantised_int4"});
  return out;
}

class PolicyTest : public ::testing::TestWithParam<std::string> {};

TEST_P(PolicyTest, ChunksOfAnySizeAgree) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const Tensor tokens = random_bases(2, 90, 1);
  const MemoryConfig config = config_of(16, 4);
  const Measured whole = run(backbone, GetParam(), config, tokens, 90);
  for (const int64_t chunk : {1, 7, 16, 40}) {
    const Measured chunked = run(backbone, GetParam(), config, tokens, chunk);
    EXPECT_LT(max_difference(chunked.logits, whole.logits), 1e-9) << chunk;
    EXPECT_EQ(chunked.use.retained_bytes, whole.use.retained_bytes) << chunk;
    for (std::size_t i = 0; i < whole.saved.size(); ++i) {
      for (const auto& [name, kept] : whole.saved[i]) {
        if (name.starts_with("retained.")) {
          EXPECT_LT(max_difference(chunked.saved[i].at(name).to(at::kDouble), kept.to(at::kDouble)), 1e-6)
              << i << name << chunk;
        }
      }
    }
  }
}

TEST_P(PolicyTest, StaysWithinTheBudgetAfterEveryWindow) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  for (const Remainder remainder : {Remainder::own, Remainder::merge, Remainder::drop}) {
    MemoryConfig config = config_of(24, 5);
    config.window.remainder = remainder;
    const auto made = make_memory(GetParam(), backbone, config);
    const CompressedModel& model = *made;
    CompressedStream stream;
    for (int64_t window = 1; window <= 12; ++window) {
      model.forward(random_bases(2, 24, window), stream);
      const int64_t held = model.memory_use(stream).retained_bytes,
                    allowed = budget_after(*backbone, config, window, 2);
      if (keeps_all(GetParam())) {
        EXPECT_EQ(held, 2 * model.planned_use(24 * window).retained_bytes);
        EXPECT_EQ(model.memory_use(stream).entries, 24 * window);
      } else {
        EXPECT_LE(held, allowed) << "after window " << window;
        if (!drops_more(GetParam())) {
          EXPECT_GT(held, allowed * 3 / 4) << "after window " << window;
        }
      }
    }
  }
}

TEST(MixtureTest, ItsPlanStaysWithinTheBudgetAndSpendsIt) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto backbone = small_model(type);
    for (const int64_t window : {16, 24, 64, 100, 130, 1024}) {
      for (const int64_t k : {1, 4, 5, 16, 25, 100, 400}) {
        if (k > window) continue;
        SCOPED_TRACE(concat("window ", window, ", k ", k, ", ", toString(type)));
        const MemoryConfig config = config_of(window, k);
        const auto mixture = make_memory("mixture", backbone, config);
        for (int64_t n = 1; n <= 150; ++n) {
          ASSERT_LE(mixture->planned_use(n * window).retained_bytes, budget_after(*backbone, config, n))
              << "after window " << n;
        }
        const MemoryUse use = mixture->planned_use(150 * window);
        // But for what is left where every base is held, or where a window has bytes for few codes.
        if (use.entries >= 150 * window || window < 4 * k) continue;
        EXPECT_GT(use.retained_bytes, budget_after(*backbone, config, 150) * 9 / 10);
      }
    }
  }
}

TEST_P(PolicyTest, WorksInBf16) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kBFloat16);
  const MemoryConfig config = config_of(16, 4);
  const Measured r = run(backbone, GetParam(), config, random_bases(2, 80, 5), 16);
  EXPECT_TRUE(r.logits.isfinite().all().item<bool>());
  if (!keeps_all(GetParam())) {
    EXPECT_LE(r.use.retained_bytes, budget_after(*backbone, config, 5, 2));
  }
}

TEST_P(PolicyTest, SequencesOfABatchDoNotMix) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const Tensor tokens = random_bases(3, 70, 6);
  const MemoryConfig config = config_of(16, 4);
  const Measured together = run(backbone, GetParam(), config, tokens, 16);
  for (int64_t b = 0; b < 3; ++b)
    EXPECT_LT(max_difference(run(backbone, GetParam(), config, tokens.narrow(0, b, 1), 16).logits,
                             together.logits.narrow(0, b, 1)),
              1e-6)
        << b;
}

TEST_P(PolicyTest, HoldsNoMoreBytesThanFocusWould) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kFloat);
  const MemoryConfig config = config_of(16, 4);
  const Measured r = run(backbone, GetParam(), config, random_bases(1, 160, 2), 16);
  const int64_t budget = budget_after(*backbone, config, 10);
  if (keeps_all(GetParam())) {
    // 8 channels of two heads in fp32, or a code each, a key's share of 16 in 4 bytes per channel, and 4
    // bytes per value.
    const int64_t code_bytes = GetParam().ends_with("int8") ? 16 : 8;
    const int64_t entry = quantises(GetParam()) ? 2 * (code_bytes + 8 * 4 / 16 + 4)
                                                : bytes_per_entry(1, 2, 8, at::kFloat, false);
    EXPECT_EQ(r.use.retained_bytes, 2 * 160 * entry);
    return;
  }
  EXPECT_LE(r.use.retained_bytes, budget);
  if (!drops_more(GetParam()) && r.use.entries < 160) {
    EXPECT_GT(r.use.retained_bytes, budget * 9 / 10);
  }
}

TEST_P(PolicyTest, WithOneEntryPerBaseEqualsFullUnlessItDropsMore) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const Tensor tokens = random_bases(1, 90, 3), expected = backbone->forward(tokens);
  const double difference =
      max_difference(run(backbone, GetParam(), config_of(16, 1), tokens, 16).logits, expected);
  if (drops_more(GetParam())) {
    EXPECT_GT(difference, 1e-6);
  } else if (quantises(GetParam())) {
    // Each code is off by half a step of its range at most; two layers of them, and the blocks above, make
    // less than three steps of it.
    const double steps = GetParam().find("int8") != std::string::npos ? 255 : 15;
    EXPECT_LT(difference, 3 / steps * expected.abs().max().item<double>());
  } else {
    EXPECT_LT(difference, 1e-9);
  }
}

TEST_P(PolicyTest, GroupedQueriesChunkAndSaveAlike) {
  at::NoGradGuard guard;
  const auto backbone = testing::small_llama(at::kDouble);
  const Tensor tokens = random_bases(1, 160, 4);
  const MemoryConfig config = config_of(16, 4);
  const Measured whole = run(backbone, GetParam(), config, tokens, 160),
                 chunked = run(backbone, GetParam(), config, tokens, 7);
  EXPECT_LT(max_difference(chunked.logits, whole.logits), 1e-9);
  const int64_t layers = 3, budget = layers * 10 * 4 * focus_entry_bytes(*backbone, config);
  if (GetParam() == "full") {
    EXPECT_EQ(whole.use.retained_bytes, layers * 160 * bytes_per_entry(1, 2, 6, at::kDouble, false));
    EXPECT_LT(max_difference(whole.logits, backbone->forward(tokens)), 1e-9);
  } else if (!keeps_all(GetParam())) {
    EXPECT_LE(whole.use.retained_bytes, budget);
  }
}

INSTANTIATE_TEST_SUITE_P(Rivals, PolicyTest, ::testing::ValuesIn(names()),
                         [](const auto& policy) { return policy.param; });

TEST(SinksTest, KeepTheFirstAndTheNewestBases) {
  at::NoGradGuard guard;
  const auto backbone = small_model(at::kDouble);
  const auto& block = *backbone->blocks->items[2];
  const Budget budget{WindowPlan({16, WindowUnit::bases, Remainder::own}, 2),
                      bytes_per_entry(1, 2, 8, at::kDouble, false)};
  EntryStore retained;
  for (int64_t w = 0; w < 3; ++w) {
    const Tensor k = at::arange(w * 16, (w + 1) * 16, at::kDouble).view({1, 1, 16, 1}).expand({1, 2, 16, 8});
    rival("sinks").close({.attention = *block.inner_mha_cls,
                          .pre_norm = *block.pre_norm,
                          .window = w,
                          .first_base = w * 16,
                          .first_kmer = w * 8,
                          .kmers = {},
                          .extent = 16,
                          .positions = at::arange(16),
                          .q = {},
                          .k = k,
                          .v = k,
                          .u_BND = {},
                          .focus_x = {},
                          .focus_positions = {}},
                         budget, retained);
  }
  ASSERT_EQ(retained.size(), 24);
  std::vector<int64_t> expected = {0, 1, 2, 3};
  for (int64_t i = 28; i < 48; ++i) expected.push_back(i);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(retained.origin()[i].index, expected[i]);
}

TEST(MakeMemoryTest, UnknownNameListsTheKnownOnes) {
  try {
    make_memory("slidin", small_model(at::kFloat), config_of(16, 4));
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("sliding"), std::string::npos);
  }
}

}  // namespace
}  // namespace focus::compress
