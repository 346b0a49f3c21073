// The choice of the next token.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::ops {

struct TokenChoice {
  double temperature = 1.0;  // logits are divided by it; 0: the likeliest token
  int64_t top_k = 0;         // only so many of the likeliest; 0: all
  double top_p = 1.0;        // of these, the fewest that have this share of their mass
};

/// One token for each row of logits [.., tokens], int64 [..]. `uniform` [..], fp32 in [0, 1), decides: tokens
/// stand by falling logit, equal ones by index, and the first one is taken whose mass and that of all before
/// it exceed uniform times the mass of those that may be chosen. Logits that are NaN count as -inf. Masses
/// are fp64, so that the CPU and a device choose the same token for the same logits and numbers. Nothing is
/// read back from a device. Throws ShapeError, and ConfigError for a choice that cannot be.
at::Tensor choose_tokens(const at::Tensor& logits, const at::Tensor& uniform, const TokenChoice& choice);
/// The same in plain ATen.
at::Tensor choose_tokens_reference(const at::Tensor& logits, const at::Tensor& uniform,
                                   const TokenChoice& choice);

}  // namespace focus::ops
