// What adapter training minimises, end to end: weighted sums of divergences from the full model and of the
// cross-entropy.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "focus/config/fields.h"

namespace focus::train {

/// What tells how much a position needs the memory.
enum class NeedSource {
  kl,  // KL(full || state_only)
  ce   // cross-entropy of state_only minus that of full memory, where positive
};

/// Positions that gain from memory are few, and a mean over all of them hardly sees them. A position at which
/// full memory gains `need` nats over the Hyena states alone counts 1 + weight * min(need, limit) times. The
/// need is a constant of the loss, so sums over positions and their divisor stay exact. It costs two more
/// passes without gradient for each micro-batch: full memory, and none.
struct NeedConfig {
  double weight = 0.0;
  NeedSource source = NeedSource::kl;
  double limit = 2.0;  // nats
  void visit(config::Fields& f);
};

struct ObjectiveConfig {
  double ce = 0.0;                // weight of the next-base cross-entropy (Eq. 1, 6)
  double kl = 1.0;                // weight of KL(full || compressed)
  double reverse_kl = 0.0;        // weight of KL(compressed || full)
  bool focus_positions = false;   // inline stream: Focus tokens predict the next base too (Eq. 6)
  bool skip_first_window = true;  // nothing is compressed there, so its loss has no gradient in the adapter
  NeedConfig need;
  void visit(config::Fields& f);
  bool needs_teacher() const { return kl > 0 || reverse_kl > 0; }
};

/// KL(p || q) of each position over the last dimension, from log-probabilities.
at::Tensor divergence(const at::Tensor& log_p, const at::Tensor& log_q);
/// -log q of each target. `log_q` [B, n, V], `target` [B, n] int64.
at::Tensor cross_entropy(const at::Tensor& log_q, const at::Tensor& target);
/// 1 + weight * min(need, limit) of each position, [B, n]; without gradient.
at::Tensor need_factor(const NeedConfig& config, const at::Tensor& log_full, const at::Tensor& log_state_only,
                       const at::Tensor& target);

/// The terms of the objective that have a weight, per position [B, n], with their names: "ce", "kl",
/// "reverse_kl". `log_p`: the teacher's, only read where needs_teacher().
struct ObjectiveTerm {
  std::string name;
  double weight;
  at::Tensor per_position;
};
std::vector<ObjectiveTerm> objective_terms(const ObjectiveConfig& config, const at::Tensor& log_p,
                                           const at::Tensor& log_q, const at::Tensor& target);

}  // namespace focus::train
