// Attention and fit of one window, of which nothing but the inputs is kept for the gradient.
#pragma once

#include <ATen/ATen.h>

#include "focus/compress/entries.h"
#include "focus/compress/policy.h"
#include "focus/compress/unit.h"

namespace focus::compress {

/// ops::memory_attention over the entries and, causally, over k and v.
at::Tensor attend_recomputed(const at::Tensor& q, const Entries& entries, const at::Tensor& k, const at::Tensor& v);

/// unit.summarise(span, history). What the span refers to lives until the backward pass.
Summary summarise_recomputed(const FocusUnit& unit, const ClosedSpan& span, const Entries& history);

}  // namespace focus::compress
