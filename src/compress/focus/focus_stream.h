// The streaming execution of a Focus layer.
#pragma once

#include "focus/compress/focus/focus_layer.h"
#include "focus/compress/memory/memory.h"

namespace focus::compress {

/// Continues a stream and really drops.
at::Tensor stream_focus(const FocusLayer& focus, const model::AttentionCall& layer, ModelCall& call);

}  // namespace focus::compress
