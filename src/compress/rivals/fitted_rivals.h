// Rivals whose entries are fitted in closed form: the heaviest bases beside fitted entries for the rest, and one scalar mass per window.
#pragma once

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// The bases that get most attention, exactly, and fitted entries for everything else: one for every kKmersPerEntry k-mers. The choice is
/// made per key/value head. Exact entries have beta 0 and take the bytes of a fitted one.
class HeavyFittedPolicy final : public RetentionPolicy {
 public:
  explicit HeavyFittedPolicy(Budget budget) : budget_(std::move(budget)) {}
  std::string name() const override { return "heavy_fitted"; }
  std::string describe() const override;
  bool needs_queries() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;
  static constexpr int64_t kKmersPerEntry = 2;

 private:
  Budget budget_;
};

/// A control: what a single number per window and head buys. Zero key, the window's mean log-mass as beta, its mass-weighted mean value. It
/// takes one entry per window, less than the budget where a window has more than one k-mer.
class WindowMassPolicy final : public RetentionPolicy {
 public:
  explicit WindowMassPolicy(Budget budget) : budget_(std::move(budget)) {}
  std::string name() const override { return "window_mass"; }
  std::string describe() const override {
    return "one entry per window: zero key, the window's mean log-mass as beta, its mass-weighted mean value (below the budget)";
  }
  bool needs_queries() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  Budget budget_;
};

}  // namespace focus::compress
