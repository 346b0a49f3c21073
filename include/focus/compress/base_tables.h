// Base memory: of a closed window nothing but its letters is kept, half a byte each, and keys and values of past bases are predicted from
// the letters before them by tables. The keys of early attention layers are little more than a hash of the last bases, so a few tables
// indexed by short words, added up, come close; what is learned once for a model serves every sequence.
// Legend: B batch, N letters, n bases, G key/value heads, E head dimension, F features, w words of a prediction.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "focus/compress/config.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// Letters as codes: A, C, G, T are 0 to 3, everything else is kUnknownBase. tokens [B, N] -> uint8 [B, N].
constexpr int64_t kUnknownBase = 4;
at::Tensor base_codes(const at::Tensor& tokens_BL, const model::Vocabulary& vocabulary);

/// Letters in half a byte each, on the CPU.
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

/// The tables of one attention layer: un-rotated key = mean + sum over the words that end `offsets` letters back of that word's row; values
/// alike. A word with an unknown letter has a row of its own. `beta` is added to the score of every past base: half the variance of the
/// score that the tables leave unexplained, since the mean of exp is not exp of the mean.
class BaseTables final : public torch::nn::Module {
 public:
  BaseTables(const TablesConfig& config, const model::BackboneShape& shape);
  /// Keys before rotation and values [B, G, n, E] of the last n of N letters (uint8 codes). Differentiable in the tables.
  std::pair<at::Tensor, at::Tensor> predict(const at::Tensor& codes_BN, int64_t n) const;
  /// Letters that a prediction looks back, the base's own among them.
  int64_t reach() const;

  at::Tensor key, value;            // [w, 4^word + 1, G E]
  at::Tensor key_mean, value_mean;  // [G E]
  at::Tensor beta;                  // [G]

 private:
  TablesConfig config_;
  int64_t heads_;
};

/// softmax attention of q [B, H, Q, E] over bases [0, past) of a sequence, known by their letters, and causally over k and v, whose last Q
/// positions are the queries'. Positions of bases are their indices. No more than `block` past keys exist at a time without gradient.
at::Tensor attend_letters(const at::Tensor& q_BHQE, const nn::Attention& attention, const BaseTables& tables, const PackedBases& letters,
                          int64_t past, const at::Tensor& k_BGSE, const at::Tensor& v_BGSE, int64_t block = 16384);

/// Ridge regression of the tables of all layers on the keys and values that a backbone computes with full memory.
class TablesFit {
 public:
  /// `tables` by block.
  TablesFit(model::Backbone& backbone, std::map<int64_t, BaseTables*> tables, const TablesConfig& config);
  ~TablesFit();
  /// One batch of whole sequences [B, L].
  void add(const at::Tensor& tokens_BL);
  /// All that add() adds up, fp64 on the CPU, this object's own memory: processes that share the batches out
  /// sum these, then solve.
  std::vector<at::Tensor> sums();
  /// Writes the tables. Returns, by block, the shares of key score variance and of value variance that stay unexplained on the data added.
  std::map<int64_t, std::pair<double, double>> solve();

 private:
  struct Layer;
  class Recorder;
  model::Backbone& backbone_;
  TablesConfig config_;
  std::map<int64_t, Layer> layers_;
  at::Tensor gram_, feature_sum_;  // fp64 [F, F], [F]
  double count_ = 0;
};

}  // namespace focus::compress
