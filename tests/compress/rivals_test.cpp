// Rivals on spans small enough to work out by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "attention_match.h"
#include "fitted_rivals.h"
#include "focus/core/error.h"
#include "log_mass_fit.h"
#include "span_entries.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;

constexpr int64_t kHeads = 2, kDim = 8, kBases = 16;

/// Windows of 16 bases with k = 4 at an attention layer of the small model: 4 entries with beta, or 4 (by
/// rounding down) raw ones.
class RivalTest : public ::testing::Test {
 protected:
  ClosedSpan span(const Tensor& q, const Tensor& k, const Tensor& v, int64_t window = 0) const {
    const auto& block = *backbone_->blocks->items[2];
    return {.attention = *block.inner_mha_cls,
            .pre_norm = *block.pre_norm,
            .window = window,
            .first_base = window * kBases,
            .first_kmer = window * 4,
            .kmers = plan_.kmers(window),
            .extent = kBases,
            .positions = at::arange(window * kBases, (window + 1) * kBases),
            .q = q,
            .k = k,
            .v = v,
            .u_BND = {},
            .focus_x = {},
            .focus_positions = {}};
  }
  Entries close(const std::string& name, const ClosedSpan& s) const {
    EntryStore out;
    rival(name).close(s, budget_, out);
    return out.read(s.k);
  }
  static Tensor random(int64_t seed) {
    at::manual_seed(static_cast<uint64_t>(seed));
    return at::randn({1, kHeads, kBases, kDim}, at::kDouble);
  }
  static Tensor zeros() { return at::zeros({1, kHeads, kBases, kDim}, at::kDouble); }
  /// Values that name their base: v[.., t, :] = t.
  static Tensor numbered() {
    return at::arange(kBases, at::kDouble)
        .view({1, 1, kBases, 1})
        .expand({1, kHeads, kBases, kDim})
        .contiguous();
  }
  static std::vector<double> bases_of(const Entries& e, int64_t head) {
    const Tensor first = e.v[0][head].select(1, 0).contiguous();
    return {first.const_data_ptr<double>(), first.const_data_ptr<double>() + first.numel()};
  }

  at::NoGradGuard no_grad_;
  std::shared_ptr<model::StripedHyena> backbone_ = testing::small_model(at::kDouble);
  WindowPlan plan_{WindowConfig{.size = kBases}, 4};
  Budget budget_{plan_, bytes_per_entry(1, kHeads, kDim, at::kDouble, true)};
};

TEST_F(RivalTest, RandomDrawsDistinctBasesAnewForEachWindow) {
  const Entries first = close("random", span({}, random(1), numbered())),
                again = close("random", span({}, random(1), numbered()));
  ASSERT_EQ(first.size(), 4);
  EXPECT_EQ(bases_of(first, 0), bases_of(again, 0));
  EXPECT_EQ(bases_of(first, 0), bases_of(first, 1));
  for (std::size_t i = 1; i < 4; ++i) EXPECT_LT(bases_of(first, 0)[i - 1], bases_of(first, 0)[i]);
  bool differs = false;
  for (int64_t window = 1; window < 5; ++window)
    differs |= bases_of(close("random", span({}, random(1), numbered(), window)), 0) != bases_of(first, 0);
  EXPECT_TRUE(differs);
}

TEST_F(RivalTest, HeavyKeepsTheKeysThatFutureQueriesFindHeadByHead) {
  const Tensor direction = random(2).narrow(2, 0, 1),
               q = backbone_->blocks->items[2]->inner_mha_cls->rotate(
                   direction.expand({1, kHeads, kBases, kDim}), at::arange(kBases));
  const Tensor ahead = future_queries(span(q, q, q));
  Tensor k = zeros();
  // In each head the keys of four other bases point where the turned queries do.
  for (const int64_t base : {1, 6, 7, 12}) k[0][0][base] = 3.0 * ahead[0][0][base / 4];
  for (const int64_t base : {0, 3, 9, 15}) k[0][1][base] = 3.0 * ahead[0][1][base / 4];
  for (const char* name : {"heavy", "expected_attention"}) {
    Tensor v = numbered() + 1.0;
    v = v / v.norm(2, -1, true);  // equal lengths
    const Entries kept = close(name, span(q, k, v));
    EXPECT_LT(
        max_difference(kept.k[0][0], k[0][0].index_select(0, at::tensor(std::vector<int64_t>{1, 6, 7, 12}))),
        1e-12)
        << name;
    EXPECT_LT(
        max_difference(kept.k[0][1], k[0][1].index_select(0, at::tensor(std::vector<int64_t>{0, 3, 9, 15}))),
        1e-12)
        << name;
  }
}

TEST_F(RivalTest, ExpectedAttentionWeighsByTheValuesLength) {
  const Tensor v = numbered() + 1.0;
  EXPECT_EQ(bases_of(close("expected_attention", span(random(3), zeros(), v)), 0),
            (std::vector<double>{13, 14, 15, 16}));
}

TEST_F(RivalTest, SnapKvKeepsTheNeighboursOfTheBaseThatIsSeen) {
  const Tensor q = at::ones({1, kHeads, kBases, kDim}, at::kDouble);
  Tensor k = zeros();
  k.select(2, 5).fill_(2.0);  // gets nearly all attention; pooled over 2..8, so that four of these are kept
  for (const double base : bases_of(close("snapkv", span(q, k, numbered())), 1)) {
    EXPECT_GE(base, 2);
    EXPECT_LE(base, 8);
  }
}

TEST_F(RivalTest, WindowMassOfAConstantKeyIsExact) {
  const Tensor q = random(4), v = random(5),
               key = random(6).narrow(2, 0, 1).expand({1, kHeads, kBases, kDim});
  const ClosedSpan s = span(q, key, v);
  const Entries kept = close("window_mass", s);
  ASSERT_EQ(kept.size(), 1);
  const Tensor expected =
      scores_of(future_queries(s), key).select(3, 0).mean(2) + std::log(static_cast<double>(kBases));
  EXPECT_LT(max_difference(kept.beta.select(2, 0).to(at::kDouble), expected), 1e-5);
  EXPECT_EQ(kept.k.abs().max().item<double>(), 0.0);
  // The value is the mean of the bases that references see: none sees the bases next to its own.
  const FittedUnitConfig fit;
  const Tensor seen = near_own(references(s, every_base(s, fit.reference_stride)), kBases, fit.leave_out)
                          .logical_not()
                          .to(at::kDouble);
  const Tensor weights = (seen / seen.sum(1, true)).mean(0);
  EXPECT_LT(max_difference(kept.v.select(2, 0), at::matmul(weights, v)), 1e-12);
}

TEST_F(RivalTest, HeavyFittedKeepsTheWholeMass) {
  // Equal keys: every base weighs the same, so exact and fitted entries must add up to all of them.
  const Tensor key = random(7).narrow(2, 0, 1).expand({1, kHeads, kBases, kDim});
  const ClosedSpan s = span(random(8), key, random(9));
  const Entries kept = close("heavy_fitted", s);
  ASSERT_EQ(kept.size(), 4);
  const Tensor q = future_queries(s);
  const Tensor mass = at::logsumexp(scores_of(q, kept.k) + kept.beta.to(at::kDouble).unsqueeze(2), -1);
  // A fit's target is the mean key's score and the same constant c for every reference, so its ridges leave
  // the residual c (1 + X X' / ridges)^-1 1. c is at most that of two k-mers; sums of masses err no more than
  // their parts. Beta is fp32.
  constexpr double kBetaRidge = 1e-3;
  const Tensor scaled = q / std::sqrt(static_cast<double>(kDim)), one = at::ones({q.size(2), 1}, at::kDouble);
  const Tensor system = at::matmul(scaled, scaled.transpose(-1, -2)) / FittedUnitConfig{}.ridge +
                        at::matmul(one, one.t()) / kBetaRidge + at::eye(q.size(2), at::kDouble);
  const double left =
      at::linalg_solve(system, one.expand({1, kHeads, -1, 1}), true).abs().max().item<double>();
  EXPECT_LT(max_difference(mass, at::logsumexp(scores_of(q, key), -1)), std::min(1e-2, std::log(8.0) * left + 1e-6));
  EXPECT_EQ(kept.beta.eq(0).sum().item<int64_t>(),
            kHeads * 2);  // two exact bases, and one entry for two k-mers each
}

TEST_F(RivalTest, AttentionMatchFindsRepeatedKeys) {
  // Four keys, each four times: one entry for each, with weight four and the mean value, is exact.
  const Tensor four = random(10).narrow(2, 0, 4), k = four.repeat({1, 1, 4, 1}), v = random(11);
  const ClosedSpan s = span(random(12), k, v);
  const Entries kept = close("attention_match", s);
  ASSERT_EQ(kept.size(), 4);
  const Tensor q = future_queries(s);
  // The ridge (1e-6 of the mean diagonal) moves the weights by no more than its share of the smallest
  // eigenvalue.
  const Tensor share = at::softmax(scores_of(q, k), -1).narrow(3, 0, 4);
  const Tensor spread = at::linalg_eigvalsh(at::matmul(share.transpose(-1, -2), share));
  const double moved = 1e-6 * (spread.mean(-1) / spread.select(-1, 0)).max().item<double>();
  EXPECT_LT(max_difference(kept.beta, at::full_like(kept.beta, std::log(4.0))),
            std::min(1e-3, 2 * moved / (1 - 2 * moved) + 1e-6));
  const Tensor weights = at::softmax(scores_of(q, kept.k) + kept.beta.to(at::kDouble).unsqueeze(2), -1);
  const Tensor exact = at::matmul(at::softmax(scores_of(q, k), -1), v);
  // The values v minimise |weights v - exact|^2 + ridge |v - own|^2, and the mean values of each key make the
  // first term vanish: so the error is no more than the ridge (0.1 of the mean diagonal) takes from them. Own
  // is one of four.
  const Tensor by_key = v.unflatten(2, {4, 4});  // [1, G, times, key, E]
  const Tensor farthest = (by_key - by_key.mean(2, true)).square().sum(-1).amax(2).sum(-1);  // [1, G]
  const Tensor ridge = 0.1 * at::matmul(weights.transpose(-1, -2), weights).diagonal(0, -2, -1).mean(-1);
  const Tensor error = (at::matmul(weights, kept.v) - exact).square().sum({2, 3});
  EXPECT_TRUE(error.le(ridge * farthest * (1 + 1e-3)).all().item<bool>()) << error << ridge * farthest;
  // Much nearer than those of any four bases, here the first of each key.
  EXPECT_LT(testing::relative_rms(at::matmul(weights, kept.v), exact), 0.4);
  EXPECT_GT(testing::relative_rms(at::matmul(at::softmax(scores_of(q, four), -1), v.narrow(2, 0, 4)), exact),
            0.8);
}

TEST_F(RivalTest, AdaptiveKmersFollowTheSurprise) {
  // All surprise in the window's second half: with half of it spread evenly, the first half gets one of four
  // entries.
  Tensor surprise = at::zeros({1, 2 * kBases});
  surprise[0].narrow(0, kBases + 8, 8).fill_(1.0);
  const Tensor k = random(16);
  EntryStore store;
  adaptive_by(surprise).close(span(random(17), k, numbered(), 1), budget_, store);
  const Entries kept = store.read(k);
  ASSERT_EQ(store.size(), 8);  // the budget of two windows; this store has none of the first
  const std::vector<double> means = bases_of(kept, 0);
  EXPECT_EQ(std::count_if(means.begin(), means.end(), [](double base) { return base < 8; }), 2);
  EXPECT_THROW(adaptive_by(-surprise), ShapeError);
}

TEST_F(RivalTest, MultiresMergesTheOldAndKeepsTheMass) {
  const Tensor key = random(18).narrow(2, 0, 1).expand({1, kHeads, kBases, kDim});
  EntryStore store;
  for (int64_t window = 0; window < 9; ++window) {
    const ClosedSpan s = span(random(19), key, numbered() + static_cast<double>(window * kBases), window);
    multires(s, budget_, store);
    EXPECT_EQ(store.size(), 4 * (window + 1));
    const Entries kept = store.read(key);
    // Equal keys: whatever is merged, every base so far counts once, and the mean value is the mean of all.
    const Tensor scores = scores_of(future_queries(s), kept.k) + kept.beta.to(at::kDouble).unsqueeze(2),
                 own = scores_of(future_queries(s), key);
    EXPECT_LT(max_difference(at::logsumexp(scores, -1),
                             at::logsumexp(own, -1) + std::log(static_cast<double>(window + 1))),
              0.05)
        << window;
    const double mean = (static_cast<double>((window + 1) * kBases) - 1) / 2;
    EXPECT_LT(max_difference(at::matmul(at::softmax(scores, -1), kept.v),
                             at::full({1, kHeads, scores.size(2), kDim}, mean, at::kDouble)),
              0.05 * mean + 0.05);
  }
  std::vector<int64_t> first_bases;
  for (const EntryOrigin& origin : store.origin()) first_bases.push_back(origin.index);
  std::sort(first_bases.begin(), first_bases.end());
  EXPECT_EQ(first_bases.front(), 0);
  EXPECT_EQ(std::adjacent_find(first_bases.begin(), first_bases.end()), first_bases.end());
  EXPECT_GT(first_bases[1] - first_bases[0], 9 * kBases - first_bases.back());  // coarser far than near
}

TEST(EqualSharesTest, CoverEveryItemOnce) {
  EXPECT_EQ(equal_shares({1, 1, 1, 1, 1, 1}, 3), (std::vector<Span>{{0, 2}, {2, 4}, {4, 6}}));
  EXPECT_EQ(equal_shares({9, 1, 1, 1}, 3), (std::vector<Span>{{0, 1}, {1, 2}, {2, 4}}));
  EXPECT_EQ(equal_shares({0, 0, 0, 5}, 4), (std::vector<Span>{{0, 1}, {1, 2}, {2, 3}, {3, 4}}));
  for (int64_t count = 1; count <= 7; ++count) {
    const std::vector<Span> spans = equal_shares({0.3, 0, 2.5, 0.1, 0, 0, 7}, count);
    ASSERT_EQ(static_cast<int64_t>(spans.size()), count);
    int64_t begin = 0;
    for (const Span& span : spans) {
      EXPECT_EQ(span.begin, begin);
      EXPECT_GT(span.end, span.begin);
      begin = span.end;
    }
    EXPECT_EQ(begin, 7);
  }
}

TEST_F(RivalTest, FitOfItemsThatAreLeftOutHasNextToNoMass) {
  const Tensor k = random(13), v = random(14), q = future_queries(span(random(15), k, v));
  Tensor log_mass = at::zeros({1, kHeads, kBases}, at::kDouble);
  log_mass[0][1].narrow(0, 0, 4).fill_(-std::numeric_limits<double>::infinity());
  const Entries fit = fit_log_mass(q, {k, v, log_mass}, {{0, 4}, {4, 16}}, FittedKey::free);
  EXPECT_TRUE(fit.k.isfinite().all().item<bool>() && fit.v.isfinite().all().item<bool>());
  EXPECT_LT(fit.beta[0][1][0].item<double>(), -30.0);
  EXPECT_GT(fit.beta[0][0][0].item<double>(), -3.0);
}

TEST(BoundedLeastSquaresTest, MeetsTheOptimalityConditions) {
  const Tensor diagonal =
      bounded_least_squares(at::eye(3, at::kDouble), at::tensor({1.0, -2.0, 9.0}, at::kDouble), 5.0);
  EXPECT_LT(max_difference(diagonal, at::tensor({1.0, 0.0, 5.0}, at::kDouble)), 1e-12);
  at::manual_seed(1);
  const Tensor a = at::randn({5, 20, 6}, at::kDouble), b = at::randn({5, 20, 1}, at::kDouble);
  const Tensor gram = at::matmul(a.transpose(-1, -2), a),
               rhs = at::matmul(a.transpose(-1, -2), b).squeeze(-1);
  const Tensor w = bounded_least_squares(gram, rhs, 1e9),
               gradient = at::matmul(gram, w.unsqueeze(-1)).squeeze(-1) - rhs;
  EXPECT_GE(w.min().item<double>(), 0.0);
  EXPECT_GT(gradient.min().item<double>(), -1e-6);
  EXPECT_LT((gradient * w).abs().max().item<double>(), 1e-6);
  EXPECT_GT(w.eq(0).sum().item<int64_t>(), 0);
}

}  // namespace
}  // namespace focus::compress
