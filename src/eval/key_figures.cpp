#include "key_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/compress/tables/packed_bases.h"

namespace focus::eval {
namespace {

using at::Tensor;

/// Mean over heads, from second moments [G, E, E] and sums [G, E] of `count` keys.
report::KeyRank rank_of(const Tensor& second, const Tensor& sum, double count) {
  const Tensor mean = sum / count;
  const Tensor covariance = second / count - mean.unsqueeze(-1) * mean.unsqueeze(-2);
  const Tensor values = at::linalg_eigvalsh(covariance).clamp_min(0.0).flip({-1});  // [G, E], largest first
  const Tensor total = values.sum(-1, /*keepdim=*/true), share = values.cumsum(-1) / total;
  const auto directions = [&](double of) {
    return (share.lt(of).sum(-1).to(at::kDouble) + 1).clamp_max(values.size(1)).mean().item<double>();
  };
  return {(total.squeeze(-1).pow(2) / values.pow(2).sum(-1)).mean().item<double>(), directions(0.9),
          directions(0.99)};
}

}  // namespace

struct KeyFigures::Layer {
  Tensor count;        // [1] keys
  Tensor sum, second;  // [2, G, E], [2, G, E, E] of keys before and after rotation
  Tensor scores;       // [4, G] number, sum and sum of squares of scores, sum of squares of their error
};

/// Runs plain attention and adds what it saw.
class KeyFigures::Recorder final : public model::AttentionHook {
 public:
  Recorder(KeyFigures& figures, Tensor codes) : figures_(figures), codes_(std::move(codes)) {}
  std::unique_ptr<cache::LayerState> make_state(int64_t) override { return nullptr; }
  Tensor mix(const model::AttentionCall& call) override {
    Layer& layer = figures_.layers_.at(call.block);
    const nn::Attention& attention = call.attention;
    const int64_t length = call.u_BLD.size(1), heads = attention.kv_heads();
    const Tensor positions = model::chunk_positions(call.u_BLD, 0, nullptr);
    const Tensor raw = attention.project_part(call.u_BLD, 1)
                           .unflatten(-1, {heads, -1})
                           .transpose(1, 2)
                           .to(at::kFloat);  // [1, G, L, E]
    const Tensor k = attention.rotate(raw, positions)[0];
    layer.count.add_(static_cast<double>(length));
    const Tensor both = at::stack({raw[0], k});  // [2, G, L, E]
    layer.sum.add_(both.sum(2, false, at::kDouble).to(at::kCPU));
    layer.second.add_(at::matmul(both.transpose(2, 3), both).to(at::kCPU, at::kDouble));
    if (figures_.tables_) add_scores(attention, call, positions, k, layer);
    return model::attend(attention, call.u_BLD, call.position, nullptr);
  }

 private:
  /// Over all queries and keys at once: from second moments, since (q.k)^2 = q'(kk')q.
  void add_scores(const nn::Attention& attention, const model::AttentionCall& call, const Tensor& positions,
                  const Tensor& k_GLE, Layer& layer) const {
    const int64_t length = k_GLE.size(1), heads = k_GLE.size(0), dim = k_GLE.size(2);
    const auto tables = figures_.tables_->tables(call.block);
    const Tensor missed_GLE =
        k_GLE - attention.rotate(tables->predict(codes_.to(k_GLE.device()), length).first, positions)[0];
    const Tensor q_HLE = attention.rotate(attention.project_part(call.u_BLD, 0)
                                              .unflatten(-1, {attention.heads(), -1})
                                              .transpose(1, 2)
                                              .to(at::kFloat),
                                          positions)[0] /
                         std::sqrt(static_cast<double>(dim));
    const auto moment = [](const Tensor& x_GnE) { return at::matmul(x_GnE.transpose(1, 2), x_GnE); };
    const auto options = k_GLE.options().dtype(at::kDouble);
    Tensor sum = at::zeros({heads, dim}, options), second = at::zeros({heads, dim, dim}, options),
           error = second.clone();  // of the past's keys, and of what the tables miss of them
    const compress::WindowPlan& plan = figures_.plan_;
    for (int64_t window = 1, past = 0; plan.window(window).begin < length; ++window) {
      const auto [begin, end] = plan.window(window);
      const auto closed = [&](const Tensor& x) { return x.slice(1, past, begin).to(at::kDouble); };
      sum += closed(k_GLE).sum(1);
      second += moment(closed(k_GLE));
      error += moment(closed(missed_GLE));
      past = begin;
      const Tensor q = q_HLE.slice(1, begin, std::min(end, length))
                           .unflatten(0, {heads, -1})
                           .flatten(1, 2)
                           .to(at::kDouble);  // [G, queries of its heads, E]
      const Tensor of_queries = moment(q);
      const auto pairs = static_cast<double>(q.size(1) * begin);
      layer.scores.add_(at::stack({at::full({heads}, pairs, options), (q.sum(1) * sum).sum(1),
                                   (of_queries * second).sum({1, 2}), (of_queries * error).sum({1, 2})})
                            .to(at::kCPU));
    }
  }
  KeyFigures& figures_;
  Tensor codes_;
};

KeyFigures::KeyFigures(const model::Backbone& backbone, const compress::WindowPlan& plan,
                       std::shared_ptr<const compress::FocusAdapter> tables)
    : plan_(plan), tables_(std::move(tables)) {
  const auto& shape = backbone.shape();
  const int64_t heads = shape.num_kv_heads, dim = shape.head_dim;
  const auto zeros = [](at::IntArrayRef sizes) { return at::zeros(sizes, at::kDouble); };
  for (const int64_t block : backbone.attention_blocks())
    layers_[block] = {zeros({1}), zeros({2, heads, dim}), zeros({2, heads, dim, dim}), zeros({4, heads})};
}

KeyFigures::~KeyFigures() = default;

void KeyFigures::add(model::Backbone& backbone, const Tensor& tokens_BL) {
  Recorder recorder(*this, compress::base_codes(tokens_BL, backbone.vocabulary()));
  backbone.forward_embedded(backbone.embed(tokens_BL), nullptr, &recorder);
}

std::vector<Tensor> KeyFigures::sums() {
  std::vector<Tensor> out;
  for (auto& [block, layer] : layers_)
    out.insert(out.end(), {layer.count, layer.sum, layer.second, layer.scores});
  return out;
}

void KeyFigures::write(report::BlockCalibration& block) const {
  const Layer& layer = layers_.at(block.block);
  const double count = layer.count.item<double>();
  block.before = rank_of(layer.second[0], layer.sum[0], count);
  block.after = rank_of(layer.second[1], layer.sum[1], count);
  block.explained = block.residual = std::numeric_limits<double>::quiet_NaN();
  if (!tables_) return;
  const Tensor number = layer.scores[0], sum = layer.scores[1], squares = layer.scores[2],
               error = layer.scores[3];
  block.explained = 1 - (error.sum() / (squares - sum.pow(2) / number).sum()).item<double>();
  block.residual = std::sqrt((error.sum() / number.sum()).item<double>());
}

}  // namespace focus::eval
