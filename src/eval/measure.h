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

/// Compares the predictions of positions from `begin` on with full memory's, and stores the values there.
/// Position p predicts token p + 1. Logits: fp32, CPU, `full_LV` of the whole segment, `logits_LV` of these
/// positions; a part of `full_LV` itself is at no distance. CheckFailed for logits that are not finite,
/// beginning with `where`.
void measure(const at::Tensor& full_LV, int64_t begin, const at::Tensor& logits_LV, const Input& input,
             const std::string& where, report::PositionValues& out);

}  // namespace focus::eval
