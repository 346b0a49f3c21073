// The choice of the next token on a CUDA device: raw device pointers, the caller's stream.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// The most tokens to choose from: a row is ranked by one block.
inline constexpr int64_t kMaxTokens = 1024;

template <class T>
struct Sample {
  const T* logits;       // [rows, tokens], rows logits_stride values apart
  const float* uniform;  // [rows] in [0, 1); unused where the temperature is 0
  int64_t* chosen;       // [rows]
  int64_t rows, logits_stride, tokens;
  double temperature;  // 0: the likeliest token
  int64_t top_k;       // 1 to tokens
  double top_p;        // in (0, 1]
};

/// Tokens stand by falling logit, equal ones by index; NaN counts as -inf. Of the first top_k those stay that
/// are needed for top_p of the mass exp(logit / temperature) of these; the choice is the first one whose mass
/// and that of all before it exceed uniform times the mass of those that stayed. Masses are fp64, so that CPU
/// and device choose the same token. Throws InternalError with CUDA's reason when the launch fails.
template <class T>
void sample(const Sample<T>& args, void* stream);

}  // namespace focus::kernels::cuda
