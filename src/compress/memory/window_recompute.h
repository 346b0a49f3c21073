// Attention and fit of one window. With `recompute` only their inputs are kept for the gradient, and they run
// again for it.
#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "focus/compress/focus/unit.h"
#include "focus/compress/memory/closed_span.h"
#include "focus/compress/memory/entries.h"
#include "focus/ops/attention.h"
#include "open_bases.h"

namespace focus::compress {

/// ops::memory_attention.
at::Tensor attend(const at::Tensor& q, const ops::Memory& memory, const at::Tensor& k, const at::Tensor& v,
                  bool recompute = false);
/// The same over open bases, without a gradient in a stretch.
at::Tensor attend(const at::Tensor& q, const ops::Memory& memory, const OpenBases::Shown& open);

/// unit->summarise(span, history). The span's attention lives until the backward pass.
Summary summarise(const std::shared_ptr<const FocusUnit>& unit, const ClosedSpan& span,
                  const Entries& history, bool recompute);

}  // namespace focus::compress
