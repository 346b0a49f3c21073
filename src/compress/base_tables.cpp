#include "focus/compress/base_tables.h"

#include <algorithm>
#include <cmath>

#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "focus/ops/shared_heads.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr int64_t kStep = 4096;  // bytes by which packed letters grow
constexpr int64_t kScoreBytes = int64_t{64} << 20, kSmallestBlock = 256;

int64_t rows_of(const TablesConfig& config) { return int64_t{1} << (2 * config.word); }
int64_t words_of(const TablesConfig& config) { return static_cast<int64_t>(config.offsets.size()); }
int64_t reach_of(const TablesConfig& config) { return *std::max_element(config.offsets.begin(), config.offsets.end()) + config.word; }

/// [w, B, n] rows of the words that end at each of the last n letters; 4^word where a letter is unknown.
Tensor word_rows(const Tensor& codes_BN, int64_t n, const TablesConfig& config) {
  const int64_t reach = reach_of(config), missing = n + reach - 1 - codes_BN.size(1);
  Tensor codes = codes_BN.to(at::kLong);
  if (missing > 0) codes = at::constant_pad_nd(codes, {missing, 0}, kUnknownBase);
  codes = codes.narrow(1, codes.size(1) - (n + reach - 1), n + reach - 1);
  std::vector<Tensor> rows;
  for (const int64_t offset : config.offsets) {
    Tensor row = at::zeros({codes.size(0), n}, codes.options()), unknown = at::zeros({codes.size(0), n}, codes.options().dtype(at::kBool));
    for (int64_t letter = 0; letter < config.word; ++letter) {
      const Tensor at_letter = codes.narrow(1, reach - 1 - offset - letter, n);
      row = row + at_letter.clamp_max(3) * (int64_t{1} << (2 * letter));
      unknown = unknown.logical_or(at_letter.eq(kUnknownBase));
    }
    rows.push_back(row.masked_fill(unknown, rows_of(config)));
  }
  return at::stack(rows);
}

Tensor to_heads(const Tensor& x_BNC, int64_t heads) { return x_BNC.unflatten(-1, {heads, -1}).transpose(1, 2); }

Tensor past_positions(int64_t begin, int64_t end, const at::Device& device) {
  return at::arange(begin, end, at::TensorOptions().dtype(at::kLong).device(device));
}

/// Keys at their positions, values and beta of bases [begin, end).
ops::Memory decode(const nn::Attention& attention, const BaseTables& tables, const PackedBases& letters, int64_t begin, int64_t end,
                   const Tensor& like) {
  const auto [key, value] = tables.predict(letters.codes(begin - tables.reach() + 1, end).to(like.device()), end - begin);
  return {attention.rotate(key, past_positions(begin, end, like.device())).to(like.scalar_type()), value.to(like.scalar_type()),
          tables.beta.to(key.scalar_type()).unsqueeze(-1).unsqueeze(0).expand({key.size(0), key.size(1), end - begin})};
}

/// A softmax over keys that come in parts.
class RunningSoftmax {
 public:
  explicit RunningSoftmax(const Tensor& q) : q_(q.to(at::kFloat) / std::sqrt(static_cast<double>(q.size(-1)))) {
    most_ = at::full({q.size(0), q.size(1), q.size(2), 1}, -std::numeric_limits<float>::infinity(), q_.options());
    mass_ = at::zeros_like(most_);
    sum_ = at::zeros_like(q_);
  }
  void add(const Tensor& k, const Tensor& v, const Tensor& bias) {
    const int64_t heads = q_.size(1);
    Tensor scores = at::matmul(q_, ops::shared_heads(k, heads).to(at::kFloat).transpose(-1, -2));
    if (bias.defined()) scores.add_(bias);
    const Tensor most = at::maximum(most_, scores.amax(-1, true)), weight = scores.sub_(most).exp_(), fade = (most_ - most).exp();
    mass_ = mass_ * fade + weight.sum(-1, true);
    sum_ = sum_ * fade + at::matmul(weight, ops::shared_heads(v, heads).to(at::kFloat));
    most_ = most;
  }
  Tensor result(at::ScalarType type) const { return (sum_ / mass_).to(type); }

 private:
  Tensor q_, most_, mass_, sum_;
};

}  // namespace

void TablesConfig::visit(config::Fields& f) {
  f.integer("word", word, {1, 8}, "letters of a word; a table has 4^word rows");
  f.integers("offsets", offsets, {0, 1 << 16},
             "letters between a base and the last letter of each word it is predicted from, a table each");
  f.number("ridge", ridge, {1e-9, 1e9}, "ridge penalty of the regression that fills the tables");
  f.integer("fit_sequences", fit_sequences, {1, 1 << 20}, "training sequences that the regression sees");
  f.integer("fit_length", fit_length, {2, int64_t{1} << 32}, "bases of each of them");
}

Tensor base_codes(const Tensor& tokens_BL, const model::Vocabulary& vocabulary) {
  Tensor codes = at::full(tokens_BL.sizes(), kUnknownBase, tokens_BL.options().dtype(at::kByte));
  for (int64_t base = 0; base < 4; ++base) {
    codes.masked_fill_(tokens_BL.eq(vocabulary.bases[static_cast<std::size_t>(base)]), base);
    // A lowercase letter that is a token of its own is the same base.
    const int32_t lower = vocabulary.token_of_byte[static_cast<std::size_t>("acgt"[base])];
    if (lower != model::Vocabulary::kNone) codes.masked_fill_(tokens_BL.eq(lower), base);
  }
  return codes;
}

int64_t PackedBases::bytes_of(int64_t batch, int64_t size) { return batch * ((size + 1) / 2 + kStep - 1) / kStep * kStep; }

void PackedBases::append(const Tensor& codes_BN) {
  const Tensor codes = codes_BN.to(at::kCPU).contiguous();
  const int64_t batch = codes.size(0), count = codes.size(1), needed = bytes_of(1, size_ + count);
  if (!bytes_.defined() || bytes_.size(1) < needed) {
    Tensor larger = at::zeros({batch, needed}, at::TensorOptions().dtype(at::kByte));
    if (bytes_.defined()) larger.narrow(1, 0, bytes_.size(1)).copy_(bytes_);
    bytes_ = larger;
  }
  for (int64_t b = 0; b < batch; ++b) {
    const uint8_t* source = codes.const_data_ptr<uint8_t>() + b * count;
    uint8_t* bytes = bytes_.mutable_data_ptr<uint8_t>() + b * bytes_.size(1);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = size_ + i;
      uint8_t& byte = bytes[at / 2];
      byte = at % 2 == 0 ? source[i] : static_cast<uint8_t>(byte | source[i] << 4);
    }
  }
  size_ += count;
}

Tensor PackedBases::codes(int64_t begin, int64_t end) const {
  FOCUS_CHECK(end <= size_ && begin <= end, "letters ", begin, "..", end, " of ", size_);
  const int64_t batch = bytes_.size(0);
  Tensor out = at::full({batch, end - begin}, kUnknownBase, at::TensorOptions().dtype(at::kByte));
  for (int64_t b = 0; b < batch; ++b) {
    const uint8_t* bytes = bytes_.const_data_ptr<uint8_t>() + b * bytes_.size(1);
    uint8_t* to = out.mutable_data_ptr<uint8_t>() + b * (end - begin);
    for (int64_t at = std::max<int64_t>(begin, 0); at < end; ++at) to[at - begin] = at % 2 == 0 ? bytes[at / 2] & 15 : bytes[at / 2] >> 4;
  }
  return out;
}

PackedBases PackedBases::clone() const {
  PackedBases out;
  out.bytes_ = bytes_.defined() ? bytes_.clone() : bytes_;
  out.size_ = size_;
  return out;
}

Tensor PackedBases::saved() const { return bytes_.narrow(1, 0, (size_ + 1) / 2).clone(); }

void PackedBases::load(const Tensor& saved, int64_t size) {
  if (saved.dim() != 2 || saved.scalar_type() != at::kByte || saved.size(1) != (size + 1) / 2)
    fail<CheckpointError>("a saved stream state holds no letters of ", size, " bases");
  bytes_ = at::constant_pad_nd(saved.to(at::kCPU), {0, bytes_of(1, size) - saved.size(1)}).contiguous();
  size_ = size;
}

BaseTables::BaseTables(const TablesConfig& config, const model::BackboneShape& shape) : config_(config), heads_(shape.num_kv_heads) {
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

Tensor attend_letters(const Tensor& q_BHQE, const nn::Attention& attention, const BaseTables& tables, const PackedBases& letters,
                      int64_t past, const Tensor& k_BGSE, const Tensor& v_BGSE, int64_t block) {
  if (past == 0) return ops::memory_attention(q_BHQE, {}, k_BGSE, v_BGSE);
  if (past <= block || at::GradMode::is_enabled())
    return ops::memory_attention(q_BHQE, decode(attention, tables, letters, 0, past, q_BHQE), k_BGSE, v_BGSE);
  // Neither the decoded keys nor their scores may grow with the past.
  const int64_t score_bytes = static_cast<int64_t>(sizeof(float)) * q_BHQE.size(0) * q_BHQE.size(1) * q_BHQE.size(2);
  block = std::clamp(kScoreBytes / score_bytes, std::min<int64_t>(kSmallestBlock, block), block);
  RunningSoftmax softmax(q_BHQE);
  softmax.add(k_BGSE, v_BGSE, ops::causal_bias(q_BHQE.size(2), k_BGSE.size(2), q_BHQE.device()));
  for (int64_t begin = 0; begin < past; begin += block) {
    const ops::Memory part = decode(attention, tables, letters, begin, std::min(begin + block, past), q_BHQE);
    softmax.add(part.k, part.v, ops::shared_heads(part.beta.unsqueeze(2), q_BHQE.size(1)));
  }
  return softmax.result(q_BHQE.scalar_type());
}

// ---- Regression.

struct TablesFit::Layer {
  BaseTables* tables = nullptr;
  Tensor cross;    // [F, 2 G E] features against keys and values
  Tensor sum;      // [2 G E]
  Tensor squares;  // [G, 2E, 2E] second moments of keys and values
  Tensor queries;  // [G, E, E] second moments of the queries, before rotation
  double num_queries = 0;
};

/// Runs plain attention and adds what it saw.
class TablesFit::Recorder final : public model::AttentionHook {
 public:
  /// `index`: [w, n] the feature of each word at each base.
  Recorder(std::map<int64_t, Layer>& layers, Tensor index) : layers_(layers), index_(std::move(index)) {}
  Tensor mix(const model::AttentionCall& call) override {
    const auto found = layers_.find(call.block);
    if (found != layers_.end()) add(call, found->second);
    return model::attend(call.attention, call.u_BLD, call.position, nullptr);
  }
  std::unique_ptr<cache::LayerState> make_state(int64_t) override { return nullptr; }

 private:
  void add(const model::AttentionCall& call, Layer& layer) const {
    const int64_t heads = call.attention.kv_heads();
    const Tensor k = call.attention.project_part(call.u_BLD, 1).to(at::kFloat).flatten(0, 1),
                 v = call.attention.project_part(call.u_BLD, 2).to(at::kFloat).flatten(0, 1);
    const Tensor q =
        call.attention.project_part(call.u_BLD, 0).to(at::kFloat).flatten(0, 1).unflatten(-1, {heads, -1, call.attention.head_dim()});
    const Tensor both = at::cat({k, v}, -1);
    Tensor cross = at::zeros(layer.cross.sizes(), both.options());
    for (const Tensor& word : index_.to(both.device()).unbind(0)) cross.index_add_(0, word, both);
    layer.cross.add_(cross.to(at::kCPU, at::kDouble));
    layer.sum.add_(both.sum(0, false, at::kDouble).to(at::kCPU));
    const Tensor by_head = at::cat({k.unflatten(-1, {heads, -1}), v.unflatten(-1, {heads, -1})}, -1).transpose(0, 1);  // [G, n, 2E]
    layer.squares.add_(at::matmul(by_head.transpose(1, 2), by_head).to(at::kCPU, at::kDouble));
    const Tensor queries = q.transpose(0, 1).flatten(1, 2);  // [G, n group, E]
    layer.queries.add_(at::matmul(queries.transpose(1, 2), queries).to(at::kCPU, at::kDouble));
    layer.num_queries += static_cast<double>(queries.size(1));
  }
  std::map<int64_t, Layer>& layers_;
  Tensor index_;
};

TablesFit::TablesFit(model::Backbone& backbone, std::map<int64_t, BaseTables*> tables, const TablesConfig& config)
    : backbone_(backbone), config_(config) {
  const auto& shape = backbone.shape();
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const int64_t features = words_of(config) * (rows_of(config) + 1), channels = shape.num_kv_heads * shape.head_dim;
  for (const auto& [block, table] : tables) {
    layers_[block] = {table, at::zeros({features, 2 * channels}, options), at::zeros({2 * channels}, options),
                      at::zeros({shape.num_kv_heads, 2 * shape.head_dim, 2 * shape.head_dim}, options),
                      at::zeros({shape.num_kv_heads, shape.head_dim, shape.head_dim}, options)};
  }
  gram_ = at::zeros({features, features}, options);
  feature_sum_ = at::zeros({features}, options);
}

TablesFit::~TablesFit() = default;

void TablesFit::add(const Tensor& tokens_BL) {
  const at::NoGradGuard guard;
  const int64_t table_rows = rows_of(config_) + 1;
  const Tensor rows = word_rows(base_codes(tokens_BL, backbone_.vocabulary()), tokens_BL.size(1), config_);  // [w, B, L]
  const Tensor offsets = at::arange(words_of(config_), rows.options()).mul_(table_rows).view({-1, 1, 1});
  const Tensor index = (rows + offsets).flatten(1);  // [w, B L]
  // How often two words meet, table by table: features are 0 or 1, so that is their product's sum.
  const Tensor words = rows.flatten(1).to(at::kCPU);
  for (int64_t i = 0; i < words.size(0); ++i) {
    for (int64_t j = i; j < words.size(0); ++j) {
      const Tensor met = at::bincount(words[i] * table_rows + words[j], {}, table_rows * table_rows).view({table_rows, table_rows});
      gram_.narrow(0, i * table_rows, table_rows).narrow(1, j * table_rows, table_rows).add_(met);
      if (j > i) gram_.narrow(0, j * table_rows, table_rows).narrow(1, i * table_rows, table_rows).add_(met.transpose(0, 1));
    }
    feature_sum_.narrow(0, i * table_rows, table_rows).add_(at::bincount(words[i], {}, table_rows));
  }
  count_ += static_cast<double>(index.size(1));
  Recorder recorder(layers_, index);
  backbone_.forward_embedded(backbone_.embed(tokens_BL), nullptr, &recorder);
}

std::map<int64_t, std::pair<double, double>> TablesFit::solve() {
  FOCUS_CHECK(count_ > 0, "tables are fitted to nothing");
  const at::NoGradGuard guard;
  const int64_t table_rows = rows_of(config_) + 1;
  // Around the means: (X - x)'(X - x) = X'X - n x x'.
  const Tensor mean_features = feature_sum_ / count_;
  Tensor gram = gram_ - at::outer(mean_features, mean_features) * count_;
  gram.diagonal().add_(config_.ridge);
  const Tensor factor = at::linalg_cholesky(gram);
  std::map<int64_t, std::pair<double, double>> unexplained;
  for (auto& [block, layer] : layers_) {
    const Tensor mean = layer.sum / count_, cross = layer.cross - at::outer(mean_features, layer.sum);
    const Tensor weights = at::cholesky_solve(cross, factor);  // [F, 2 G E]
    const Tensor base = mean - at::matmul(mean_features, weights);
    BaseTables& t = *layer.tables;
    const int64_t channels = t.key_mean.size(0), heads = t.beta.size(0), dim = channels / heads;
    const Tensor shaped = weights.view({words_of(config_), table_rows, 2 * channels});
    t.key.copy_(shaped.narrow(-1, 0, channels));
    t.value.copy_(shaped.narrow(-1, channels, channels));
    t.key_mean.copy_(base.narrow(0, 0, channels));
    t.value_mean.copy_(base.narrow(0, channels, channels));
    // Residual second moments by head: S - n m m' - 2 W'C + W' G0 W with G0 = gram without the ridge; keys and values of a head together.
    double left_key = 0, all_key = 0, left_value = 0, all_value = 0;
    for (int64_t head = 0; head < heads; ++head) {
      const auto of_head = [&](const Tensor& x) {
        return at::cat({x.narrow(-1, head * dim, dim), x.narrow(-1, channels + head * dim, dim)}, -1);
      };
      const Tensor w = of_head(weights), c = of_head(cross), m = of_head(mean);
      const Tensor total = layer.squares[head] - at::outer(m, m) * count_;
      Tensor plain_gram = gram.clone();
      plain_gram.diagonal().sub_(config_.ridge);
      const Tensor half = at::matmul(w.transpose(0, 1), c);
      const Tensor left = total - half - half.transpose(0, 1) + at::matmul(w.transpose(0, 1), at::matmul(plain_gram, w));
      const Tensor q = layer.queries[head] / layer.num_queries;
      const double scale = 1.0 / static_cast<double>(dim);
      const auto score_variance = [&](const Tensor& s) {
        return (s.narrow(0, 0, dim).narrow(1, 0, dim) / count_ * q).sum().item<double>() * scale;
      };
      const double variance = std::max(score_variance(left), 0.0);
      t.beta[head] = variance / 2;
      left_key += variance;
      all_key += score_variance(total);
      left_value += left.diagonal().narrow(0, dim, dim).sum().item<double>();
      all_value += total.diagonal().narrow(0, dim, dim).sum().item<double>();
    }
    unexplained[block] = {left_key / std::max(all_key, 1e-300), left_value / std::max(all_value, 1e-300)};
  }
  return unexplained;
}

}  // namespace focus::compress
