// Training through the stream itself: window after window, really dropping.
#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "focus/compress/compressed_model.h"

namespace focus::train {

/// What model.parallel() gives for tokens [B, L], computed window by window as inference does. Calls `piece`
/// with the first position of consecutive windows and their hidden states [B, n, D]: of all of them once, or,
/// where `bptt_windows` is not 0, of every so many. Between two pieces the gradient is cut, so that what a
/// piece keeps for it may be freed before the next: memory grows with the piece, not with L.
void forward_sequential(const compress::CompressedModel& model, const at::Tensor& tokens_BL,
                        int64_t bptt_windows,
                        const std::function<void(int64_t begin, const compress::HiddenStates&)>& piece);

}  // namespace focus::train
