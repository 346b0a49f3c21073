#include "focus/compress/tables/tables_fit.h"

#include <cmath>

#include "focus/core/error.h"
#include "word_rows.h"

namespace focus::compress {

using at::Tensor;

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
    const Tensor q = call.attention.project_part(call.u_BLD, 0)
                         .to(at::kFloat)
                         .flatten(0, 1)
                         .unflatten(-1, {heads, -1, call.attention.head_dim()});
    const Tensor both = at::cat({k, v}, -1);
    Tensor cross = at::zeros(layer.cross.sizes(), both.options());
    for (const Tensor& word : index_.to(both.device()).unbind(0)) cross.index_add_(0, word, both);
    layer.cross.add_(cross.to(at::kCPU, at::kDouble));
    layer.sum.add_(both.sum(0, false, at::kDouble).to(at::kCPU));
    const Tensor by_head = at::cat({k.unflatten(-1, {heads, -1}), v.unflatten(-1, {heads, -1})}, -1)
                               .transpose(0, 1);  // [G, n, 2E]
    layer.squares.add_(at::matmul(by_head.transpose(1, 2), by_head).to(at::kCPU, at::kDouble));
    const Tensor queries = q.transpose(0, 1).flatten(1, 2);  // [G, n group, E]
    layer.queries.add_(at::matmul(queries.transpose(1, 2), queries).to(at::kCPU, at::kDouble));
    layer.num_queries += static_cast<double>(queries.size(1));
  }
  std::map<int64_t, Layer>& layers_;
  Tensor index_;
};

double score_residual(const BaseTables& tables) {
  return std::sqrt(2 * tables.beta.detach().to(at::kDouble).mean().item<double>());
}

TablesFit::TablesFit(model::Backbone& backbone, std::map<int64_t, BaseTables*> tables,
                     const TablesConfig& config)
    : backbone_(backbone), config_(config) {
  const auto& shape = backbone.shape();
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const int64_t features = words_of(config) * (rows_of(config) + 1),
                channels = shape.num_kv_heads * shape.head_dim;
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
  const Tensor rows =
      word_rows(base_codes(tokens_BL, backbone_.vocabulary()), tokens_BL.size(1), config_);  // [w, B, L]
  const Tensor offsets = at::arange(words_of(config_), rows.options()).mul_(table_rows).view({-1, 1, 1});
  const Tensor index = (rows + offsets).flatten(1);  // [w, B L]
  // How often two words meet, table by table: features are 0 or 1, so that is their product's sum.
  const Tensor words = rows.flatten(1).to(at::kCPU);
  for (int64_t i = 0; i < words.size(0); ++i) {
    for (int64_t j = i; j < words.size(0); ++j) {
      const Tensor met = at::bincount(words[i] * table_rows + words[j], {}, table_rows * table_rows)
                             .view({table_rows, table_rows});
      gram_.narrow(0, i * table_rows, table_rows).narrow(1, j * table_rows, table_rows).add_(met);
      if (j > i)
        gram_.narrow(0, j * table_rows, table_rows)
            .narrow(1, i * table_rows, table_rows)
            .add_(met.transpose(0, 1));
    }
    feature_sum_.narrow(0, i * table_rows, table_rows).add_(at::bincount(words[i], {}, table_rows));
  }
  count_ += static_cast<double>(index.size(1));
  Recorder recorder(layers_, index);
  backbone_.forward_embedded(backbone_.embed(tokens_BL), nullptr, &recorder);
}

std::vector<Tensor> TablesFit::sums() {
  std::vector<Tensor> out = {gram_, feature_sum_, at::from_blob(&count_, {}, at::kDouble)};
  for (auto& [block, layer] : layers_)
    out.insert(out.end(), {layer.cross, layer.sum, layer.squares, layer.queries,
                           at::from_blob(&layer.num_queries, {}, at::kDouble)});
  return out;
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
    // Residual second moments by head: S - n m m' - 2 W'C + W' G0 W with G0 = gram without the ridge; keys
    // and values of a head together.
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
      const Tensor left =
          total - half - half.transpose(0, 1) + at::matmul(w.transpose(0, 1), at::matmul(plain_gram, w));
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
