// Beyond the paper: summaries that do not all stand for the same number of bases, at the same budget.
#pragma once

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// As many fitted entries for a window as Focus would have, but of k-mers whose boundaries are placed by surprise: each carries an equal
/// share of it. Surprise is per base and sequence: half of it even over the window, which bounds a k-mer to twice its even length, and half
///   by mass (no `surprise_BL`): the attention that the references pay to the base in this layer, over all heads
///   by entropy: `surprise_BL` [B, L], any non-negative number for each base of the sequences, known before the stream
class AdaptivePolicy final : public RetentionPolicy {
 public:
  AdaptivePolicy(Budget budget, at::Tensor surprise_BL) : budget_(std::move(budget)), surprise_BL_(std::move(surprise_BL)) {}
  std::string name() const override { return surprise_BL_.defined() ? "adaptive_entropy" : "adaptive"; }
  std::string describe() const override;
  bool needs_queries() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  Budget budget_;
  at::Tensor surprise_BL_;
};

/// `count` spans, one after the other, that cover the items once, none of them empty, each with as near as can be 1/count of the weight.
std::vector<Span> equal_shares(const std::vector<double>& weights, int64_t count);

/// Multi-resolution: fitted entries of few bases for the newest window, merged pair by pair as they grow older, so that an entry's extent
/// grows with its distance and the whole takes the budget. An entry is never fitted to raw bases again: the pair's log-mass, measured by
/// the references of the closing window, is fitted by one entry, whose value is the pair's mean by mass. Extents are the distances between
/// origins, whose index is the first base.
class MultiresPolicy final : public RetentionPolicy {
 public:
  explicit MultiresPolicy(Budget budget) : budget_(std::move(budget)) {}
  std::string name() const override { return "multires"; }
  std::string describe() const override;
  bool needs_queries() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;
  static constexpr int64_t kFiner = 4;  // entries of the newest window for each of Focus's

 private:
  Budget budget_;
};

}  // namespace focus::compress
