// Rivals that keep raw keys and values of the bases they judge most important, chosen anew for each window and key/value head.
#pragma once

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// Keeps the bases with the highest scores, as many of each window as the budget holds.
class KeySelectionPolicy : public RetentionPolicy {
 public:
  explicit KeySelectionPolicy(Budget budget) : budget_(std::move(budget)) {}
  bool needs_queries() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const final;

 protected:
  /// [B, G, n]: the higher, the sooner kept. Only the order counts.
  virtual at::Tensor score(const ClosedSpan& span) const = 0;

 private:
  Budget budget_;
};

/// The attention that the span's last queries pay to each base, the largest of a neighbourhood (SnapKV, arXiv 2404.14469). Unlike there the
/// voting queries' own keys are not kept for their own sake: at long windows and large k they alone would exceed the budget.
class SnapKvPolicy final : public KeySelectionPolicy {
 public:
  using KeySelectionPolicy::KeySelectionPolicy;
  std::string name() const override { return "snapkv"; }
  std::string describe() const override;
  static constexpr int64_t kObserved = 64, kNeighbourhood = 7;

 protected:
  at::Tensor score(const ClosedSpan& span) const override;
};

/// The attention that a base can expect from queries drawn from a normal distribution with the mean and covariance of the references, times
/// the length of its value (arXiv 2510.00636): E exp(q.k/sqrt(E)) = exp(mu.k/sqrt(E) + k'Sk/(2E)).
class ExpectedAttentionPolicy final : public KeySelectionPolicy {
 public:
  using KeySelectionPolicy::KeySelectionPolicy;
  std::string name() const override { return "expected_attention"; }
  std::string describe() const override {
    return "raw keys and values with the highest attention expected from Gaussian future queries, times the value's length, per head";
  }

 protected:
  at::Tensor score(const ClosedSpan& span) const override;
};

/// The share of attention that the references pay to a base.
class HeavyPolicy final : public KeySelectionPolicy {
 public:
  using KeySelectionPolicy::KeySelectionPolicy;
  std::string name() const override { return "heavy"; }
  std::string describe() const override {
    return "raw keys and values that get most attention from the window's own queries, turned one window ahead, per head";
  }

 protected:
  at::Tensor score(const ClosedSpan& span) const override;
};

/// Indices [B, G, count] of the highest scores, in the order of the bases.
at::Tensor top_bases(const at::Tensor& score_BGN, int64_t count);

}  // namespace focus::compress
