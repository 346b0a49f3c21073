// The parallel execution of a Focus layer.
#pragma once

#include "focus/compress/focus/focus_layer.h"
#include "focus/compress/memory/memory.h"

namespace focus::compress {

/// A whole sequence: all its entries are made first, then every stretch of bases that sees the same entries
/// attends to them and, causally, to the raw bases that a stream would still hold. No L x L array exists.
at::Tensor whole_focus(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call);

}  // namespace focus::compress
