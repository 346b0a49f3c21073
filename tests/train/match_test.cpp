// Attention matching on a small random backbone in fp64.
#include "focus/train/tasks/match.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"
#include "focus/train/loop/optimizer.h"
#include "support/small_model.h"

namespace focus::train {
namespace {

using at::Tensor;
using compress::CompressedModel;
using compress::MemoryConfig;

struct Case {
  std::shared_ptr<model::Backbone> backbone;
  std::shared_ptr<compress::FocusAdapter> adapter;
  std::unique_ptr<CompressedModel> model;
  Tensor tokens, weights;

  explicit Case(compress::UnitKind unit, int64_t k = 5, bool perturbed = true, int64_t entries_per_kmer = 1,
                bool check = true) {
    MemoryConfig memory;
    memory.focus.entries_per_kmer = entries_per_kmer;
    memory.window.size = 16;
    memory.focus.k = k;
    memory.focus.rank = 3;
    memory.focus.unit = unit;
    if (unit == compress::UnitKind::fitted) memory.focus.fitted.check = check;
    backbone = testing::small_model(at::kDouble);
    adapter = testing::perturbed_adapter(*backbone, memory);
    const at::NoGradGuard guard;
    if (!perturbed) {
      const compress::FocusAdapter start(*backbone, memory, 1);
      const auto fresh = start.named_parameters();
      for (auto& item : adapter->named_parameters()) item.value().copy_(fresh[item.key()]);
    }
    for (auto& parameter : adapter->parameters()) parameter.set_requires_grad(true);
    model = std::make_unique<CompressedModel>(backbone, adapter);
    tokens = testing::random_bases(2, 56, 4);
    weights = at::rand({2, 56}, at::kFloat);
  }
  MatchSum sum(const MatchConfig& config, int64_t draw = 0) const {
    return match_sum(config, *backbone, *adapter, tokens, weights, draw);
  }
  double kl() const {
    const at::NoGradGuard guard;
    const Tensor p = at::log_softmax(backbone->forward(tokens), -1);
    const Tensor q = at::log_softmax(backbone->unembed(model->parallel(tokens).bases), -1);
    return (p.exp() * (p - q)).sum(-1).mean().item<double>();
  }
};

MatchConfig balanced() {
  MatchConfig config;
  config.queries = 4;
  config.mass = 0.5;
  config.output = 2.0;
  return config;
}

TEST(MatchTest, GradientsEqualFiniteDifferences) {
  for (const auto unit : {compress::UnitKind::fitted, compress::UnitKind::paper}) {
    const Case c(unit);
    c.sum(balanced()).loss.backward();
    const at::NoGradGuard guard;
    for (auto& item : c.adapter->named_parameters()) {
      ASSERT_TRUE(item.value().grad().defined()) << item.key();
      const Tensor direction = at::randn(item.value().sizes(), at::kDouble);
      const double expected = (item.value().grad() * direction).sum().item<double>(), step = 1e-5;
      item.value().add_(direction, step);
      const double up = c.sum(balanced()).loss.item<double>();
      item.value().add_(direction, -2 * step);
      const double down = c.sum(balanced()).loss.item<double>();
      item.value().add_(direction, step);
      EXPECT_NEAR((up - down) / (2 * step), expected, 1e-6 * (1 + std::abs(expected))) << item.key();
    }
  }
}

// The output term, from the definition: with all queries it is the error of the layer's output relative to
// what leaves the layer. The first compressed layer of the stream sees the same input with either memory, so
// its error is the difference of the two runs.
class EntriesPerKmerTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(EntriesPerKmerTest, OutputErrorIsThatOfTheFirstCompressedLayer) {
  Case c(compress::UnitKind::fitted, 5, true, GetParam());
  MemoryConfig first_only = c.adapter->config();
  first_only.focus.layers = {2};
  c.adapter = c.adapter->with(first_only);
  MatchConfig config;
  config.queries = 0;
  const double measured = c.sum(config).output.item<double>();

  // What block 2 adds to the residual stream, seen by an observing hook of the full model and computed from
  // entries by hand.
  struct Observer final : model::AttentionHook {
    at::Tensor mix(const model::AttentionCall& call) override {
      const Tensor mixed = model::attend(call.attention, call.u_BLD, 0, nullptr);
      if (call.block == 2) {
        after = call.x_BLD + mixed;
        full = mixed;
        u = call.u_BLD;
        attention = &call.attention;
        norm = &call.pre_norm;
      }
      return mixed;
    }
    std::unique_ptr<cache::LayerState> make_state(int64_t) override { return nullptr; }
    Tensor after, full, u;
    const nn::Attention* attention = nullptr;
    const nn::RmsNorm* norm = nullptr;
  } observer;
  const at::NoGradGuard guard;
  c.backbone->forward_embedded(c.backbone->embed(c.tokens), nullptr, &observer);
  const auto all = observer.attention->project(observer.u, at::arange(56));
  const compress::WindowPlan plan(first_only.window, first_only.focus.k);
  compress::Entries entries;
  double expected = 0;
  for (int64_t w = 0; w < 4; ++w) {
    const auto window = plan.window(w);
    const int64_t end = std::min<int64_t>(window.end, 55);
    for (int64_t row = window.begin; w > 0 && row < end; ++row) {
      const Tensor q = all.q.narrow(2, row, 1),
                   k = at::cat({entries.k, all.k.narrow(2, window.begin, row + 1 - window.begin)}, 2),
                   v = at::cat({entries.v, all.v.narrow(2, window.begin, row + 1 - window.begin)}, 2);
      const Tensor bias = at::constant_pad_nd(entries.beta, {0, row + 1 - window.begin}).unsqueeze(2);
      const Tensor context =
          at::matmul(at::softmax(at::matmul(q, k.transpose(-1, -2)) / std::sqrt(8.0) + bias, -1), v);
      const Tensor error = observer.attention->output(context) - observer.full.narrow(1, row, 1);
      const Tensor relative = error.square().sum(-1) / observer.after.narrow(1, row, 1).square().sum(-1);
      expected += (relative.squeeze(1) * c.weights.select(1, row + 1)).sum().item<double>();
    }
    if (window.end > 56) break;
    compress::ClosedSpan span{.attention = *observer.attention,
                              .pre_norm = *observer.norm,
                              .window = w,
                              .first_base = window.begin,
                              .first_kmer = plan.kmers_before(w),
                              .kmers = plan.kmers(w),
                              .extent = 16,
                              .positions = at::arange(window.begin, window.end),
                              .q = all.q.narrow(2, window.begin, 16),
                              .k = all.k.narrow(2, window.begin, 16),
                              .v = all.v.narrow(2, window.begin, 16),
                              .u_BND = observer.u.narrow(1, window.begin, 16),
                              .focus_x = {},
                              .focus_positions = {}};
    entries.append(c.adapter->unit(2)->summarise(span, {}).entries);
    // Windows of 16 bases: three k-mers of 5 bases and one of a single base.
    ASSERT_EQ(entries.size(), (w + 1) * (3 * GetParam() + 1));
  }
  EXPECT_GT(expected, 0);
  EXPECT_NEAR(measured, expected, 1e-9 * expected);
}

INSTANTIATE_TEST_SUITE_P(MatchTest, EntriesPerKmerTest, ::testing::Values(1, 3));

// k = 1 keeps every base as an entry: the paper's unit aside, the fit of a single key is that key.
TEST(MatchTest, EntriesThatLoseNothingMatchExactly) {
  const Case c(compress::UnitKind::fitted, 1, /*perturbed=*/false);
  const MatchSum sum = c.sum(balanced());
  EXPECT_NEAR(sum.loss.item<double>(), 0, 1e-6);
  EXPECT_GT(Case(compress::UnitKind::fitted).sum(balanced()).loss.item<double>(), 1e-3);
}

TEST(MatchTest, WeightIsThatOfThePredictedBases) {
  const Case c(compress::UnitKind::fitted);
  MatchConfig all;
  all.queries = 0;
  EXPECT_NEAR(match_weight(all, c.model->plan(), c.weights, 3).item<double>(),
              c.weights.narrow(1, 17, 39).sum(at::kDouble).item<double>(), 1e-6);
  // Offsets partition the queries: the sums over all offsets make the sum over all queries.
  MatchConfig some = all;
  some.queries = 4;  // of windows of 16, 16 and 7: every 4th, 4th and single one
  const Tensor tokens = c.tokens.narrow(1, 0, 49), weights = c.weights.narrow(1, 0, 49);
  const auto weight_of = [&](const MatchConfig& config, int64_t draw) {
    return match_weight(config, c.model->plan(), weights, draw).item<double>();
  };
  const auto mass_of = [&](const MatchConfig& config, int64_t draw) {
    return match_sum(config, *c.backbone, *c.adapter, tokens, weights, draw).mass.item<double>();
  };
  double weight = 0, mass = 0;
  for (int64_t draw = 0; draw < 4; ++draw) {
    weight += weight_of(some, draw);
    mass += mass_of(some, draw);
  }
  EXPECT_NEAR(weight, weight_of(all, 0), 1e-6);
  EXPECT_NEAR(mass, mass_of(all, 0), 1e-9);
}

TEST(MatchTest, MatchingLowersItsLossAndTheEndKl) {
  for (const auto unit : {compress::UnitKind::fitted, compress::UnitKind::paper}) {
    // All entries on: of this random model the check leaves too few to be trained.
    const Case c(unit, 5, /*perturbed=*/false, /*entries_per_kmer=*/1, /*check=*/false);
    MatchConfig config;
    config.queries = 0;
    std::vector<Parameter> parameters;
    for (auto& item : c.adapter->named_parameters()) parameters.push_back({item.key(), item.value(), false});
    AdamW optimizer(parameters, {});
    const double loss_before = c.sum(config).loss.item<double>(), kl_before = c.kl();
    for (int64_t step = 0; step < 60; ++step) {
      optimizer.zero_grad();
      c.sum(config).loss.backward();
      optimizer.step(1e-2);
    }
    EXPECT_LT(c.sum(config).loss.item<double>(), 0.8 * loss_before);
    EXPECT_LT(c.kl(), 0.9 * kl_before);
  }
}

TEST(MatchTest, StreamsAndVisibilitiesItCannotMatchAreRefused) {
  MemoryConfig memory;
  refuse_match(memory);
  memory.focus.stream = compress::Stream::inline_tokens;
  EXPECT_THROW(refuse_match(memory), ConfigError);
  memory = {};
  memory.focus.local = compress::Local::kmer;
  EXPECT_THROW(refuse_match(memory), ConfigError);
  memory = {};
  memory.focus.history = compress::History::window;
  EXPECT_THROW(refuse_match(memory), ConfigError);
}

}  // namespace
}  // namespace focus::train
