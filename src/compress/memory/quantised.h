// Rounding to 8 or 4 bits.
#pragma once

#include "focus/compress/memory/storage.h"

namespace focus::compress {

/// Scales for each row [.., S, E] (`key_group` 0), or for each channel of every `key_group` consecutive rows.
QuantisedTensor quantise(const at::Tensor& x_BGSE, int64_t bits, int64_t key_group);
/// `row_of` [S] int64: for each entry its row of low and step; undefined where every entry has its own.
at::Tensor dequantise(const QuantisedTensor& q, int64_t bits, const at::Tensor& row_of, at::ScalarType dtype);

}  // namespace focus::compress
