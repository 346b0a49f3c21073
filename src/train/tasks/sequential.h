// Training through the stream itself: window after window, really dropping.
#pragma once

#include <ATen/ATen.h>

#include "focus/compress/compressed_model.h"

namespace focus::train {

/// What model.parallel() gives, [B, L, D] hidden states of tokens [B, L], computed window by window as
/// inference does. The gradient reaches back over all windows, or is cut before every `bptt_windows`-th when
/// that is not 0.
compress::HiddenStates forward_sequential(const compress::CompressedModel& model, const at::Tensor& tokens_BL,
                                          int64_t bptt_windows);

}  // namespace focus::train
