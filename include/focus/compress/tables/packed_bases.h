// The bases of a stream in half a byte each. Legend: B batch, L length, N bases.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "focus/model/vocabulary.h"

namespace focus::compress {

/// Letters as codes: A, C, G, T are 0 to 3, everything else is kUnknownBase. tokens [B, N] -> uint8 [B, N].
constexpr int64_t kUnknownBase = 4;
at::Tensor base_codes(const at::Tensor& tokens_BL, const model::Vocabulary& vocabulary);

/// Letters in half a byte each, on the device that they come from.
class PackedBases {
 public:
  /// codes uint8 [B, N].
  void append(const at::Tensor& codes_BN);
  /// [B, end - begin] uint8; positions before 0 come as unknown.
  at::Tensor codes(int64_t begin, int64_t end) const;
  int64_t size() const { return size_; }
  /// Bytes really held; grows in steps.
  int64_t num_bytes() const { return bytes_.defined() ? static_cast<int64_t>(bytes_.nbytes()) : 0; }
  static int64_t bytes_of(int64_t batch, int64_t size);
  PackedBases clone() const;
  /// [B, bytes] of the letters alone, and back.
  at::Tensor saved() const;
  void load(const at::Tensor& saved, int64_t size);

 private:
  at::Tensor bytes_;
  int64_t size_ = 0;
};

}  // namespace focus::compress
