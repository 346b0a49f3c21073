// Rivals that need nothing but positions: which bases are kept, or averaged, does not depend on what they are.
#pragma once

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// The newest bases, as many as the budget holds; `sinks` of them are the very first bases instead.
class SlidingPolicy final : public RetentionPolicy {
 public:
  SlidingPolicy(Budget budget, int64_t sinks) : budget_(std::move(budget)), sinks_(sinks) {}
  std::string name() const override { return sinks_ > 0 ? "sinks" : "sliding"; }
  std::string describe() const override;
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  Budget budget_;
  int64_t sinks_;
};

/// Bases at even distances, as many of each window as the budget holds.
class StridedPolicy final : public RetentionPolicy {
 public:
  explicit StridedPolicy(Budget budget) : budget_(std::move(budget)) {}
  std::string name() const override { return "strided"; }
  std::string describe() const override { return "raw keys and values of evenly spaced bases of each window"; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  Budget budget_;
};

/// Bases drawn at random, without repetition, from a fixed seed: as many of each window as the budget holds.
class RandomPolicy final : public RetentionPolicy {
 public:
  explicit RandomPolicy(Budget budget) : budget_(std::move(budget)) {}
  std::string name() const override { return "random"; }
  std::string describe() const override;
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  Budget budget_;
};

/// One entry per k-mer: the mean of its rotated keys and of its values, with log-mass beta = log k or without.
class MeanPoolPolicy final : public RetentionPolicy {
 public:
  explicit MeanPoolPolicy(bool with_beta) : with_beta_(with_beta) {}
  std::string name() const override { return with_beta_ ? "mean_pool" : "mean_pool_nobeta"; }
  std::string describe() const override {
    return with_beta_ ? "mean key and value of each k-mer, beta = log k" : "mean key and value of each k-mer, no beta";
  }
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  bool with_beta_;
};

}  // namespace focus::compress
