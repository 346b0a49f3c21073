#include "tasks/loss_positions.h"

#include <algorithm>
#include <vector>

#include "focus/ops/host_copy.h"

namespace focus::train {

using at::Tensor;

namespace {

// Bases into a planted copy after which a model that remembers its source has noticed.
constexpr int32_t kCopyFound = 32;

}  // namespace

Tensor next_bases(const Batch& batch) { return batch.tokens.narrow(1, 1, batch.tokens.size(1) - 1); }

Tensor copy_positions(const Batch& batch) {
  return batch.copy_offset.narrow(1, 1, batch.copy_offset.size(1) - 1).ge(kCopyFound).to(at::kFloat);
}

Tensor loss_weights(const Batch& batch, const compress::WindowPlan& plan, bool skip_first_window) {
  Tensor weights = batch.weights.narrow(1, 1, batch.weights.size(1) - 1);
  if (!skip_first_window) return weights;
  // Position p predicts base p + 1 with the memory of p: the first window's end is the first whose output
  // entries can change.
  const int64_t first = std::min(plan.window(0).end, weights.size(1));
  weights = weights.clone();
  weights.narrow(1, 0, first).zero_();
  return weights;
}

Tensor focus_next(const Batch& batch, const compress::WindowPlan& plan) {
  std::vector<int64_t> next;
  int64_t completed = 0;
  for (int64_t t = 1; t <= batch.tokens.size(1); ++t) {
    if (plan.kmers_completed(t) > completed) {
      next.push_back(t);
      ++completed;
    }
  }
  return ops::from_host(next, batch.tokens.device());
}

Tensor focus_weights(const Batch& batch, const Tensor& next, const compress::WindowPlan& plan,
                     bool skip_first_window) {
  const int64_t length = batch.tokens.size(1);
  const int64_t first = skip_first_window ? plan.window(0).end + 1 : 0;
  return batch.weights.index_select(1, next.clamp_max(length - 1)) *
         next.lt(length).logical_and(next.ge(first)).to(at::kFloat);
}

}  // namespace focus::train
