// The learning rate by step.
#pragma once

#include <cstdint>

#include "focus/config/fields.h"

namespace focus::train {

enum class DecayKind { constant, cosine, linear };
/// What the decay counts: with sequences of growing length a step late in the run is worth many early ones.
enum class DecayOver { steps, bases };

/// The paper gives 200 warm-up steps (Table 1) and names no decay, hence `constant`.
struct ScheduleConfig {
  int64_t warmup_steps = 200;
  DecayKind kind = DecayKind::constant;
  double final_ratio = 0.1;
  DecayOver over = DecayOver::steps;
  void visit(config::Fields& f) {
    f.integer("warmup_steps", warmup_steps, {0, int64_t{1} << 40},
              "steps over which the learning rate rises linearly from 0");
    f.choice(
        "kind", kind,
        {{"constant", DecayKind::constant}, {"cosine", DecayKind::cosine}, {"linear", DecayKind::linear}},
        "course of the learning rate after the warm-up");
    f.number("final_ratio", final_ratio, {0, 1},
             "cosine, linear: learning rate at the last step, as a share of the peak");
    f.choice("over", over, {{"steps", DecayOver::steps}, {"bases", DecayOver::bases}},
             "whether the decay counts steps or bases seen");
  }
};

/// Learning rate of optimizer step `step` (0 is the first of `total_steps`). Warm-up gives peak (step + 1) /
/// warmup_steps, so that the first step already learns and step warmup_steps - 1 has the peak; the decay then
/// runs to peak * final_ratio at step total_steps - 1 and stays there. A run no longer than its warm-up never
/// decays. InternalError when step is negative or total_steps not positive.
double lr_at(const ScheduleConfig& config, double peak_lr, int64_t step, int64_t total_steps);

}  // namespace focus::train
