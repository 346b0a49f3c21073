// One segment under one method, compared with full memory at every position.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "focus/report/fidelity_result.h"

namespace focus::eval {

/// A segment as a model reads it.
struct Input {
  std::vector<uint8_t> letters;
  std::vector<int64_t> tokens;
  std::span<const int32_t> bases;  // tokens of A, C, G, T
};

/// Compares every position's prediction with the full memory's and stores the values from `offset` on.
/// Position p predicts token p + 1. Logits: fp32, CPU, [length, vocabulary]. CheckFailed for logits that are
/// not finite, beginning with `where`.
void measure(const at::Tensor& full_LV, const at::Tensor& logits_LV, const Input& input,
             const std::string& where, report::MethodResult& out, int64_t offset);

}  // namespace focus::eval
