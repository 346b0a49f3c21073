// Attention matching (arXiv 2602.16284): the strongest closed form among the rivals.
#pragma once

#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"

namespace focus::compress {

/// Per window and key/value head, in fp32 and on reference queries q:
///   keys    a subset S of the window's own, chosen greedily (orthogonal matching pursuit) so that weighted they reproduce the mass
///   beta    log w with non-negative, bounded least squares: sum_{j in S} w_j exp(q.k_j/sqrt(E)) ~ sum_t exp(q.k_t/sqrt(E)), relative to
///           the latter
///   values  ridge least squares: softmax(q.K_S/sqrt(E) + beta) V_S ~ the window's attention output, around the bases' own values
/// With room for every base they are kept as they are.
class AttentionMatchPolicy final : public RetentionPolicy {
 public:
  explicit AttentionMatchPolicy(Budget budget) : budget_(std::move(budget)) {}
  std::string name() const override { return "attention_match"; }
  std::string describe() const override {
    return "attention matching: keys by matching pursuit, beta by non-negative least squares, values by ridge least squares, per head";
  }
  bool needs_queries() const override { return true; }
  void close(const ClosedSpan& span, EntryStore& retained) const override;

 private:
  Budget budget_;
};

/// argmin_{0 <= w <= upper} w'Gw/2 - b'w for positive definite G: gram [.., s, s], rhs [.., s]. In fp64 on the CPU; returned like `rhs`.
at::Tensor bounded_least_squares(const at::Tensor& gram, const at::Tensor& rhs, double upper);

}  // namespace focus::compress
