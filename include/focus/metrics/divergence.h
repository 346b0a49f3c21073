// How far one next-base distribution is from another: the five measures of the paper's Appendix B (Eq. 7 to
// 11).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace focus::metrics {

/// Probabilities are clipped from below at this value, then renormalised (paper, Appendix B).
inline constexpr double kClip = 1e-12;

/// softmax of one row of logits (or log-probabilities), computed in double, clipped and renormalised.
/// Everything that a comparison needs of one side is kept, so a baseline row is prepared once and compared
/// with any number of others. Reusing an object costs no allocation.
class Distribution {
 public:
  /// Over all entries. CheckFailed when the row holds NaN or +infinity, or when all of it is -infinity.
  void assign(std::span<const float> logits);
  /// Over the entries listed in `subset` only, renormalised among them (e.g. the tokens of A, C, G, T).
  void assign(std::span<const float> logits, std::span<const int32_t> subset);

  int64_t size() const { return static_cast<int64_t>(p_.size()); }
  std::span<const double> probabilities() const { return p_; }
  std::span<const double> log_probabilities() const { return log_p_; }
  std::span<const double> square_roots() const { return sqrt_p_; }
  /// log sum exp of the row: logit - log_sum_exp() is the log-probability before clipping.
  double log_sum_exp() const { return log_sum_exp_; }
  /// Entry of the largest probability, the first of equals; with a subset, the place within the subset.
  int64_t top1() const { return top1_; }

 private:
  void normalise();

  std::vector<double> p_, log_p_, sqrt_p_;
  double log_sum_exp_ = 0;
  int64_t top1_ = 0;
};

/// Natural logarithm throughout (nats).
struct Divergences {
  double l1 = 0;         // Eq. 7: sum |p - q|
  double l2 = 0;         // Eq. 8: sqrt(sum (p - q)^2)
  double hellinger = 0;  // Eq. 9: ||sqrt p - sqrt q|| / sqrt 2
  double js = 0;         // Eq. 10
  double kl = 0;         // Eq. 11: KL(p || q)
};

/// All five measures, p the baseline. Accurate for near-equal distributions too: nothing is a difference of
/// large terms but KL, whose error is about 1e-16. InternalError when the sizes differ.
Divergences compare(const Distribution& p, const Distribution& q);

}  // namespace focus::metrics
