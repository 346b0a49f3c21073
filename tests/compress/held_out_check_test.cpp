// Which bases a reference leaves out, and when fitted entries are switched off.
#include "held_out_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "focus/compress/focus/fitted_unit.h"
#include "span_entries.h"
#include "support/small_model.h"
#include "support/tensors.h"

namespace focus::compress {
namespace {

using at::Tensor;
using testing::max_difference;

constexpr int64_t kHeads = 2, kDim = 8;

class HeldOutCheckTest : public ::testing::Test {
 protected:
  /// A span in k-mers of `kmer` bases.
  ClosedSpan span(const Tensor& q, const Tensor& k, const Tensor& v, int64_t kmer = 4) const {
    const auto& block = *backbone_->blocks->items[2];
    const int64_t bases = k.size(2);
    std::vector<Span> kmers;
    for (int64_t begin = 0; begin < bases; begin += kmer)
      kmers.push_back({begin, std::min(begin + kmer, bases)});
    return {.attention = *block.inner_mha_cls,
            .pre_norm = *block.pre_norm,
            .kmers = Kmers(std::move(kmers)),
            .extent = bases,
            .positions = at::arange(bases),
            .q = q,
            .k = k,
            .v = v,
            .u_BND = {},
            .focus_x = {},
            .focus_positions = {}};
  }
  static Tensor random(int64_t bases, int64_t seed) {
    at::manual_seed(static_cast<uint64_t>(seed));
    return at::randn({1, kHeads, bases, kDim}, at::kDouble);
  }
  static bool is_off(const Entries& e, int64_t head) {
    return e.beta[0][head].le(kSwitchedOff).all().item<bool>();
  }
  static bool is_on(const Entries& e, int64_t head) {
    return e.beta[0][head].gt(kSwitchedOff / 2).all().item<bool>();
  }

  at::NoGradGuard no_grad_;
  std::shared_ptr<model::StripedHyena> backbone_ = testing::small_model(at::kDouble);
};

TEST_F(HeldOutCheckTest, AReferenceLeavesItsNeighboursOutAndKeepsSome) {
  const Tensor x = random(10, 1);
  const References own = references(span(x, x, x), at::tensor(std::vector<int64_t>{1, 5, 9}));
  EXPECT_TRUE(own.own.equal(at::tensor(std::vector<int64_t>{1, 5, 9})));
  const Tensor near = near_own(own, 10, 2);
  EXPECT_TRUE(near[1].nonzero().flatten().equal(at::tensor(std::vector<int64_t>{4, 5, 6})));
  EXPECT_EQ(near_own(own, 10, 0).sum().item<int64_t>(), 0);
  for (int64_t bases = 1; bases <= 9; ++bases) {
    const Tensor y = random(bases, 1);
    for (const int64_t leave_out : {1, 2, 5, 100})
      EXPECT_FALSE(near_own(references(span(y, y, y), every_base(span(y, y, y), 1)), bases, leave_out)
                       .all(-1)
                       .any()
                       .item<bool>())
          << bases;
  }
}

TEST_F(HeldOutCheckTest, BasesThatAreLeftOutCountLikeTheRest) {
  const Tensor scores = at::tensor({0.0, 0.0, 7.0, 0.0}, at::kDouble).unsqueeze(0);
  const auto flags = [](std::vector<int64_t> set) {
    Tensor out = at::zeros({1, 4}, at::kBool);
    for (const int64_t i : set) out[0][i] = true;
    return out;
  };
  const Tensor all = flags({0, 1, 2, 3});
  EXPECT_NEAR(log_mass_of(scores, all, flags({2})).item<double>(), std::log(4.0), 1e-12);
  EXPECT_NEAR(log_mass_of(scores, flags({0, 2}), flags({2})).item<double>(), std::log(2.0), 1e-12);
  EXPECT_NEAR(log_mass_of(scores, flags({2}), flags({1, 2})).item<double>(), 7.0, 1e-12);  // it has no others
  EXPECT_EQ(log_mass_of(scores, flags({}), flags({2})).item<double>(),
            -std::numeric_limits<double>::infinity());
}

TEST_F(HeldOutCheckTest, EntriesStayWhereTheyServeAndGoWhereTheyDoNotHeadByHead) {
  // Exact bases serve; bases with another's values and a mass beyond all measure do not.
  const ClosedSpan s = span(random(32, 2), random(32, 3), random(32, 4));
  Entries exact = raw_entries(s);
  exact.beta = at::zeros({1, kHeads, 32});
  FittedUnitConfig config;
  config.leave_out = 0;
  check_entries(s, {}, {}, config, exact);
  EXPECT_TRUE(is_on(exact, 0) && is_on(exact, 1));

  Entries wrong = raw_entries(s);
  wrong.beta = at::zeros({1, kHeads, 32});
  wrong.v = wrong.v.clone();
  wrong.v[0][1] *= -5.0;
  check_entries(s, {}, {}, config, wrong);
  EXPECT_TRUE(is_on(wrong, 0));
  EXPECT_TRUE(is_off(wrong, 1));
}

TEST_F(HeldOutCheckTest, FitsOfATandemRepeatAreSwitchedOffUnlessToldOtherwise) {
  // Each base's query finds the keys of its own phase, one unit after the other, and almost nothing else; a
  // k-mer has all phases. The second head has values that are all alike: there a mean says everything.
  constexpr int64_t kUnit = 5, kBases = 60;
  const Tensor phases = at::eye(kDim, at::kDouble).narrow(0, 0, kUnit) * 12.0;
  const Tensor k = phases.repeat({kBases / kUnit, 1}).expand({1, kHeads, kBases, kDim}).contiguous();
  const Tensor v = random(kUnit, 5).repeat({1, 1, kBases / kUnit, 1});
  v[0][1].fill_(1.0);
  FocusConfig focus;
  focus.k = 10;
  focus.fitted.corrections = false;
  const model::BackboneShape& shape = backbone_->shape();
  ClosedSpan s = span(k, k, v, focus.k);
  s.extent = 0;  // as if positions did not matter
  const Entries checked = FittedUnit(focus, shape).summarise(s, {}).entries;
  EXPECT_TRUE(is_off(checked, 0));
  EXPECT_TRUE(is_on(checked, 1));
  focus.fitted.check = false;
  const Entries unchecked = FittedUnit(focus, shape).summarise(s, {}).entries;
  EXPECT_TRUE(is_on(unchecked, 0));
  EXPECT_LT(max_difference(checked.k, unchecked.k), 1e-12);
}

}  // namespace
}  // namespace focus::compress
