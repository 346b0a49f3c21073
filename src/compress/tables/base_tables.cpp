#include "focus/compress/tables/base_tables.h"

#include <algorithm>

#include "focus/core/error.h"
#include "focus/ops/partial_attention.h"
#include "focus/ops/recompute.h"
#include "word_rows.h"

namespace focus::compress {
namespace {

using at::Tensor;

Tensor to_heads(const Tensor& x_BNC, int64_t heads) {
  return x_BNC.unflatten(-1, {heads, -1}).transpose(1, 2);
}

Tensor past_positions(int64_t begin, int64_t end, const at::Device& device) {
  return at::arange(begin, end, at::TensorOptions().dtype(at::kLong).device(device));
}

/// Keys at their positions, values and beta of bases [begin, end).
ops::MemoryPart decode(const nn::Attention& attention, const BaseTables& tables, const PackedBases& letters,
                       int64_t begin, int64_t end, const Tensor& like) {
  const auto [key, value] =
      tables.predict(letters.codes(begin - tables.reach() + 1, end).to(like.device()), end - begin);
  return {attention.rotate(key, past_positions(begin, end, like.device())).to(like.scalar_type()),
          value.to(like.scalar_type()),
          tables.beta.to(key.scalar_type())
              .unsqueeze(-1)
              .unsqueeze(0)
              .expand({key.size(0), key.size(1), end - begin})};
}

}  // namespace

void TablesConfig::visit(config::Fields& f) {
  f.integer("word", word, {1, 8}, "letters of a word; a table has 4^word rows");
  f.integers("offsets", offsets, {0, 1 << 16},
             "letters between a base and the last letter of each word it is predicted from, a table each");
  f.number("ridge", ridge, {1e-9, 1e9}, "ridge penalty of the regression that fills the tables");
  f.integer("fit_sequences", fit_sequences, {1, 1 << 20}, "training sequences that the regression sees");
  f.integer("fit_length", fit_length, {2, int64_t{1} << 32}, "bases of each of them");
}

BaseTables::BaseTables(const TablesConfig& config, const model::BackboneShape& shape)
    : config_(config), heads_(shape.num_kv_heads) {
  const int64_t channels = shape.num_kv_heads * shape.head_dim;
  key = register_parameter("key", at::zeros({words_of(config), rows_of(config) + 1, channels}));
  value = register_parameter("value", at::zeros({words_of(config), rows_of(config) + 1, channels}));
  key_mean = register_parameter("key_mean", at::zeros({channels}));
  value_mean = register_parameter("value_mean", at::zeros({channels}));
  beta = register_parameter("beta", at::zeros({heads_}));
}

int64_t BaseTables::reach() const { return reach_of(config_); }

std::pair<Tensor, Tensor> BaseTables::predict(const Tensor& codes_BN, int64_t n) const {
  const Tensor rows = word_rows(codes_BN, n, config_);
  Tensor k = key_mean, v = value_mean;
  for (int64_t word = 0; word < words_of(config_); ++word) {
    k = k + at::embedding(key[word], rows[word]);
    v = v + at::embedding(value[word], rows[word]);
  }
  return {to_heads(k, heads_), to_heads(v, heads_)};
}

Tensor attend_letters(const Tensor& q_BHQE, const nn::Attention& attention, const BaseTables& tables,
                      const PackedBases& letters, int64_t past, const Tensor& k_BGSE, const Tensor& v_BGSE,
                      int64_t block) {
  if (past == 0) return ops::memory_attention(q_BHQE, {}, k_BGSE, v_BGSE);
  if (past <= block)
    return ops::memory_attention(q_BHQE, decode(attention, tables, letters, 0, past, q_BHQE), k_BGSE, v_BGSE);
  ops::PartialAttention all = ops::partial_attention(q_BHQE, {}, k_BGSE, v_BGSE);
  for (int64_t begin = 0; begin < past; begin += block) {
    const auto read = [=, &attention, &tables](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      const ops::PartialAttention part = ops::partial_attention(
          in[0], decode(attention, tables, letters, begin, std::min(begin + block, past), in[0]), {}, {});
      return {part.out, part.log_sum};
    };
    const std::vector<Tensor> part = ops::recomputed(read, {q_BHQE}, /*has_parameters=*/true);
    all = ops::merged(all, {part[0], part[1]});
  }
  return all.out.to(q_BHQE.scalar_type());
}

}  // namespace focus::compress
