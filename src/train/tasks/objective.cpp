#include "focus/train/tasks/objective.h"

namespace focus::train {

using at::Tensor;

void NeedConfig::visit(config::Fields& f) {
  f.number("weight", weight, {0, 1e6},
           "a position at which full memory gains n nats over the Hyena states alone counts 1 + weight * "
           "min(n, limit) times; 0 = all count "
           "alike. Costs two more passes without gradient");
  const auto weighted = f.when(weight > 0, "weight", "> 0");
  f.only(weighted).choice(
      "source", source, {{"kl", NeedSource::kl}, {"ce", NeedSource::ce}},
      "the gain: KL(full || state_only), or the cross-entropy of state_only minus that of full memory");
  f.only(weighted).number("limit", limit, {1e-6, 1e6}, "most nats that count");
}

void ObjectiveConfig::visit(config::Fields& f) {
  f.number("ce", ce, {0, 1e6}, "weight of the next-base cross-entropy");
  f.number("kl", kl, {0, 1e6},
           "weight of KL(full || compressed), the teacher being the same backbone with full memory");
  f.number("reverse_kl", reverse_kl, {0, 1e6}, "weight of KL(compressed || full)");
  f.only(f.when(ce > 0, "ce", "> 0"))
      .boolean("focus_positions", focus_positions,
               "inline stream: Focus tokens predict the next base too (cross-entropy, Eq. 6)");
  f.boolean("skip_first_window", skip_first_window,
            "leave out the first window, where nothing is compressed yet");
  f.group("need", need, "weight of positions by what they gain from memory");
}

Tensor divergence(const Tensor& log_p, const Tensor& log_q) {
  return (log_p.exp() * (log_p - log_q)).sum(-1);
}

Tensor cross_entropy(const Tensor& log_q, const Tensor& target) {
  return -log_q.gather(-1, target.unsqueeze(-1)).squeeze(-1);
}

Tensor need_factor(const NeedConfig& config, const Tensor& log_full, const Tensor& log_state_only,
                   const Tensor& target) {
  const at::NoGradGuard guard;
  const Tensor need = config.source == NeedSource::kl
                          ? divergence(log_full, log_state_only)
                          : cross_entropy(log_state_only, target) - cross_entropy(log_full, target);
  return 1 + config.weight * need.clamp(0, config.limit);
}

std::vector<ObjectiveTerm> objective_terms(const ObjectiveConfig& config, const Tensor& log_p,
                                           const Tensor& log_q, const Tensor& target) {
  std::vector<ObjectiveTerm> out;
  if (config.ce > 0) out.push_back({"ce", config.ce, cross_entropy(log_q, target)});
  if (config.kl > 0) out.push_back({"kl", config.kl, divergence(log_p, log_q)});
  if (config.reverse_kl > 0) out.push_back({"reverse_kl", config.reverse_kl, divergence(log_q, log_p)});
  return out;
}

}  // namespace focus::train
