// Which predictions of a batch count in a loss, and how much. B batch, L length.
#pragma once

#include <ATen/ATen.h>

#include "focus/compress/plan/plan.h"
#include "focus/train/loop/task.h"

namespace focus::train {

/// [B, L-1] the tokens that positions 0..L-2 predict.
at::Tensor next_bases(const Batch& batch);
/// [B, L-1] 1 where the predicted base lies in a planted copy, beyond the bases that tell that it is one.
at::Tensor copy_positions(const Batch& batch);
/// [B, L-1] weights of the predictions of bases 1..L-1; 0 where nothing is compressed yet, if so wished.
at::Tensor loss_weights(const Batch& batch, const compress::WindowPlan& plan, bool skip_first_window);
/// The position that each Focus token of the sequence predicts: the base after its k-mer, or L when the last
/// k-mer ends the sequence.
at::Tensor focus_next(const Batch& batch, const compress::WindowPlan& plan);
/// [B, tokens] weights of the predictions of `next`; 0 where there is no base.
at::Tensor focus_weights(const Batch& batch, const at::Tensor& next, const compress::WindowPlan& plan,
                         bool skip_first_window);

}  // namespace focus::train
