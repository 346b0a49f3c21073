// Parts of a memory put together, for what does not read them where they lie.
#pragma once

#include <cstdint>

#include "focus/ops/attention.h"

namespace focus::ops {

/// All parts as one of numbers of this type, none for none. A single part without codes stays as it is.
/// Differentiable in everything but codes.
MemoryPart joined(const Memory& memory, at::ScalarType type, int64_t query_heads);
/// The same memory in no more than `most` parts, empty ones left out: the largest stay where they lie and the
/// others are joined, which copies least.
Memory in_parts(const Memory& memory, int64_t most, at::ScalarType type, int64_t query_heads);
/// Whether attention over these would be recorded for a backward pass.
bool tracked(const at::Tensor& q, const Memory& memory, const at::Tensor& k, const at::Tensor& v);

}  // namespace focus::ops
