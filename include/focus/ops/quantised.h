// Numbers in 8 or 4 bits. Legend: B batch, G heads, S rows, E channels.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::ops {

/// A [B, G, S, E] tensor in 8 or 4 bits: x ~ low + step * code, low and step fp16. Each row has a scale of
/// its own over its channels, or rows of one group share scales channel by channel. |error| <= step / 2 and
/// the rounding of low and step, at most 2^-10 of the largest |x| of the group. A constant: no gradient
/// passes.
struct QuantisedTensor {
  at::Tensor codes = {};           // uint8 [B, G, S, E], or [.., E / 2] in 4 bits, the even channel below
  at::Tensor low = {}, step = {};  // [B, G, S, 1] or, in groups, [B, G, groups, E]
  at::Tensor row_of = {};          // in groups: int32 [S], which row of low and step belongs to a row
  int64_t bits = 0;

  bool defined() const { return codes.defined(); }
  int64_t size() const { return defined() ? codes.size(2) : 0; }
  int64_t channels() const { return codes.size(3) * 8 / bits; }
  /// Rows [begin, begin + count), a view.
  QuantisedTensor narrow(int64_t begin, int64_t count) const;
};

/// Scales for each row (`group` 0), or for each channel of every `group` consecutive rows.
QuantisedTensor quantise(const at::Tensor& x_BGSE, int64_t bits, int64_t group);
/// Computed in fp32, or fp64 for fp64, and rounded to `dtype`.
at::Tensor dequantise(const QuantisedTensor& x, at::ScalarType dtype);

}  // namespace focus::ops
