// Base memory: of a closed window only the letters are kept, half a byte each, and keys and values of past
// bases are predicted from the letters before them by tables. The keys of early attention layers are little
// more than a hash of the last bases, so a few tables indexed by short words, added up, come close; what is
// learned once for a model serves every sequence. Legend: B batch, N letters, n bases, G key/value heads, E
// head dimension, F features, w words of a prediction.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "focus/compress/plan/config.h"
#include "focus/compress/tables/packed_bases.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// The tables of one attention layer: un-rotated key = mean + sum over the words that end `offsets` letters
/// back of that word's row; values alike. A word with an unknown letter has a row of its own. `beta` is added
/// to the score of every past base: half the variance of the score that the tables leave unexplained, since
/// the mean of exp is not exp of the mean.
class BaseTables final : public torch::nn::Module {
 public:
  BaseTables(const TablesConfig& config, const model::BackboneShape& shape);
  /// Keys before rotation and values [B, G, n, E] of the last n of N letters (uint8 codes). Differentiable in
  /// the tables.
  std::pair<at::Tensor, at::Tensor> predict(const at::Tensor& codes_BN, int64_t n) const;
  /// Letters that a prediction looks back, the base's own among them.
  int64_t reach() const;
  const TablesConfig& config() const { return config_; }

  at::Tensor key, value;            // [w, 4^word + 1, G E]
  at::Tensor key_mean, value_mean;  // [G E]
  at::Tensor beta;                  // [G]

 private:
  TablesConfig config_;
  int64_t heads_;
};

/// softmax attention of q [B, H, Q, E] over bases [0, past) of a sequence, known by their letters, and
/// causally over k and v, whose last Q positions are the queries'. Positions of bases are their indices. No
/// more than `block` past keys exist at a time, on any device; in a backward pass they are made again.
at::Tensor attend_letters(const at::Tensor& q_BHQE, const nn::Attention& attention, const BaseTables& tables,
                          const PackedBases& letters, int64_t past, const at::Tensor& k_BGSE,
                          const at::Tensor& v_BGSE, int64_t block = 16384);

}  // namespace focus::compress
