#include "focus/train/loop/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "focus/core/error.h"

namespace focus::train {

double lr_at(const ScheduleConfig& config, double peak_lr, int64_t step, int64_t total_steps) {
  FOCUS_CHECK(step >= 0 && total_steps > 0, "step ", step, " of ", total_steps);
  if (step < config.warmup_steps)
    return peak_lr * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  if (config.kind == DecayKind::constant) return peak_lr;
  // The peak is held by the last warm-up step, or by step 0 without one.
  const int64_t peak_step = std::max<int64_t>(config.warmup_steps - 1, 0), last_step = total_steps - 1;
  if (step <= peak_step) return peak_lr;
  const double share =
      step >= last_step ? 1.0
                        : static_cast<double>(step - peak_step) / static_cast<double>(last_step - peak_step);
  const double left =
      config.kind == DecayKind::linear ? 1 - share : 0.5 * (1 + std::cos(std::numbers::pi * share));
  return peak_lr * (config.final_ratio + (1 - config.final_ratio) * left);
}

}  // namespace focus::train
