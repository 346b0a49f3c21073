// Attention of a whole sequence, stretch by stretch of bases that see the same. Legend: B batch, H query
// heads, L bases, E head dimension.
#pragma once

#include <functional>

#include "far_layer.h"
#include "focus/compress/plan/layer_rules.h"
#include "focus/nn/attention.h"

namespace focus::compress {

/// [B, H, L, E]: each base attends to the entries that `shown` gives for it and, causally, to the raw bases
/// that the rules leave it; with `far`, to what that fetches too.
at::Tensor attend_stretches(const LayerRules& rules, const nn::Projection& bases,
                            const std::function<ops::Memory(const LayerRules::Visible&)>& shown,
                            bool recompute, FarLayer* far = nullptr);

}  // namespace focus::compress
