// Legend: B batch, H query heads, G key/value heads, L length, n queries, P past bases, S entries, E head
// dimension, D width.
#include "focus/train/tasks/match.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/compress/focus/focus_layer.h"
#include "focus/core/error.h"
#include "focus/ops/shared_heads.h"

namespace focus::train {
namespace {

using at::Tensor;
using compress::Span;

at::ScalarType wide_type(const Tensor& like) {
  return like.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Queries of a window: every n-th base, from an offset. The last base of a sequence predicts nothing.
struct Rows {
  int64_t begin = 0, end = 0, stride = 1;
  bool empty() const { return begin >= end; }
  int64_t last() const { return begin + (end - 1 - begin) / stride * stride; }
  /// [n] int64, made there: the host waits for nothing.
  Tensor on(const at::Device& device) const {
    return at::arange(begin, end, stride, at::TensorOptions().dtype(at::kLong).device(device));
  }
};
Rows query_rows(const MatchConfig& config, const Span& window, int64_t length, int64_t draw) {
  const int64_t end = std::min(window.end, length - 1), count = end - window.begin;
  if (count <= 0) return {};
  const int64_t stride = config.queries == 0 ? 1 : std::max<int64_t>(1, count / config.queries);
  return {window.begin + draw % stride, end, stride};
}

/// Attention over one part of what a query sees: the log of its mass, [B, H, n], and its own softmax's
/// context, [B, H, n, E].
struct Part {
  Tensor log_mass, context;
};
/// `bias` is added to the scores; undefined = 0.
Part part_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias) {
  const int64_t heads = q.size(1);
  const auto type = wide_type(q);
  Tensor scores = at::matmul(q.to(type), ops::shared_heads(k.to(type), heads).transpose(-1, -2)) /
                  std::sqrt(static_cast<double>(q.size(-1)));
  if (bias.defined()) scores = scores + bias;
  return {at::logsumexp(scores, -1),
          at::matmul(at::softmax(scores, -1), ops::shared_heads(v.to(type), heads))};
}
/// One softmax over both.
Part together(const Part& a, const Part& b) {
  const Tensor log_mass = at::logaddexp(a.log_mass, b.log_mass);
  const auto share = [&](const Part& part) {
    return (part.log_mass - log_mass).exp().unsqueeze(-1) * part.context;
  };
  return {log_mass, share(a) + share(b)};
}

/// Runs the plain attention and, at each compressed layer, the comparison.
class MatchHook final : public model::AttentionHook {
 public:
  MatchHook(const MatchConfig& config, const compress::FocusAdapter& adapter, const Tensor& weights_BL,
            int64_t draw)
      : config_(config), adapter_(adapter), weights_BL_(weights_BL), draw_(draw) {}

  Tensor mix(const model::AttentionCall& call) override {
    const Tensor mixed = model::attend(call.attention, call.u_BLD, call.position, nullptr);
    if (const auto focus = compress::focus_layer(adapter_, call.block, kmers_)) {
      const at::AutoGradMode with_gradient(outer_gradient_);
      compare(call, *focus, call.x_BLD + mixed);
    }
    return mixed;
  }
  std::unique_ptr<cache::LayerState> make_state(int64_t) override {
    FOCUS_CHECK(false, "matching keeps no state");
    return nullptr;
  }

  MatchSum result() const {
    FOCUS_CHECK(layers_ > 0, "no layer is compressed");
    const auto layers = static_cast<double>(layers_);
    return {loss_ / layers, mass_ / layers, output_ / layers};
  }

 private:
  void compare(const model::AttentionCall& call, const compress::FocusLayer& focus, const Tensor& after_BLD) {
    const int64_t length = call.u_BLD.size(1);
    const auto device = call.u_BLD.device();
    const Tensor positions = at::arange(0, length, at::TensorOptions().dtype(at::kLong).device(device));
    nn::Projection all;
    {
      const at::NoGradGuard frozen;
      all = call.attention.project(call.u_BLD, positions);
    }
    const compress::LayerBases bases{call.attention, call.pre_norm, length,     all.q,
                                     all.k,          all.v,         call.u_BLD, positions};
    const compress::WindowPlan& plan = focus.rules.plan();
    compress::Entries entries;
    std::size_t next_side = 0;
    for (int64_t window = 0; plan.window(window).begin < length; ++window) {
      const Span w = plan.window(window);
      if (!entries.empty()) compare_window(call, all, w, entries, after_BLD);
      if (w.end >= length) continue;
      // Focus states go from layer to layer beside the bases, with their gradient: none of it passes through
      // the backbone.
      compress::ClosedSpan span = focus.span(bases, w, window, plan.kmers_before(window), plan.kmers(window));
      entries.append(focus.summarise(std::move(span), entries, pass_, next_side).entries);
    }
    ++layers_;
  }

  void compare_window(const model::AttentionCall& call, const nn::Projection& all, const Span& window,
                      const compress::Entries& entries, const Tensor& after_BLD) {
    const Rows rows = query_rows(config_, window, after_BLD.size(1), draw_);
    if (rows.empty()) return;
    const auto device = call.u_BLD.device();
    const int64_t last = rows.last() + 1 - window.begin, heads = all.q.size(1);
    const Tensor index = rows.on(device);
    const Tensor q = all.q.index_select(2, index);
    Part local, full;
    {
      const at::NoGradGuard frozen;
      const Tensor later =
          at::arange(window.begin, window.begin + last, index.options()).unsqueeze(0).gt(index.unsqueeze(1));
      const Tensor causal = at::zeros(later.sizes(), later.options().dtype(wide_type(q)))
                                .masked_fill_(later, -std::numeric_limits<double>::infinity());
      local = part_of(q, all.k.narrow(2, window.begin, last), all.v.narrow(2, window.begin, last), causal);
      full =
          together(part_of(q, all.k.narrow(2, 0, window.begin), all.v.narrow(2, 0, window.begin), {}), local);
    }
    const Tensor beta =
        entries.beta.defined() ? ops::shared_heads(entries.beta, heads).unsqueeze(2) : Tensor();
    const Part compressed = together(part_of(q, entries.k, entries.v, beta), local);

    const Tensor mass = (compressed.log_mass - full.log_mass).square().mean(1);  // [B, n]
    // The projection of the difference, so that a short type rounds the error and not what it is the
    // difference of; its bias cancels.
    const auto type = all.q.scalar_type();
    const Tensor difference = (compressed.context - full.context).to(type),
                 nothing = at::zeros({1, heads, 1, q.size(-1)}, difference.options());
    const Tensor error =
        (call.attention.output(difference) - call.attention.output(nothing)).to(mass.scalar_type());
    const Tensor size = after_BLD.index_select(1, index).to(mass.scalar_type()).square().sum(-1);
    const Tensor output = error.square().sum(-1) / size;

    const Tensor weights =
        weights_BL_.index_select(1, rows.on(weights_BL_.device()) + 1).to(device, mass.scalar_type());
    const Tensor mass_sum = (mass * weights).sum(), output_sum = (output * weights).sum();
    mass_ = mass_ + mass_sum.detach().to(mass_.device(), at::kDouble);
    output_ = output_ + output_sum.detach().to(output_.device(), at::kDouble);
    const Tensor loss = (config_.mass * mass_sum + config_.output * output_sum).to(weights_BL_.device());
    loss_ = loss_.defined() ? loss_ + loss : loss;
  }

  const MatchConfig& config_;
  const compress::FocusAdapter& adapter_;
  const Tensor& weights_BL_;
  int64_t draw_;
  bool outer_gradient_ = at::GradMode::is_enabled();
  std::shared_ptr<compress::KmersCache> kmers_ = std::make_shared<compress::KmersCache>();
  compress::ModelCall pass_;  // carries the Focus states from layer to layer
  Tensor loss_;
  Tensor mass_ = at::zeros({}, weights_BL_.options().dtype(at::kDouble)), output_ = mass_;
  int64_t layers_ = 0;
};

}  // namespace

void MatchConfig::visit(config::Fields& f) {
  f.integer("queries", queries, {0, 1 << 24},
            "queries of each later window that entries are compared on; 0 = all");
  f.number("mass", mass, {0, 1e6}, "weight of the squared error of the log of the attention's mass");
  f.number("output", output, {0, 1e6},
           "weight of the squared error of the layer's output, relative to the residual stream");
}

void refuse_match(const compress::MemoryConfig& memory) {
  if (memory.focus.stream == compress::Stream::inline_tokens) {
    fail<ConfigError>(
        "stages of kind 'match' need focus.stream 'side': Focus tokens among the bases change the bases' "
        "positions and states, so the full "
        "model's pass does not show their layers' inputs; train with kind 'end_to_end'");
  }
  if (memory.uses(compress::MemoryKind::tables))
    fail<ConfigError>(
        "stages of kind 'match' have nothing to do with memory.kind 'tables': the tables are fitted before "
        "the first step");
  if (memory.uses(compress::MemoryKind::quantised))
    fail<ConfigError>(
        "stages of kind 'match' have nothing to do with memory.kind 'quantised', which has no parameters; "
        "train the backbone on it with kind 'end_to_end' and adapt");
  if (memory.focus.eviction != compress::Eviction::window || memory.focus.tail > 0 ||
      memory.focus.sinks > 0 || !memory.focus.schedule.empty()) {
    fail<ConfigError>(
        "stages of kind 'match' compare whole closed windows: they need focus.eviction 'window' and no tail, "
        "sinks or schedule; train "
        "these "
        "with kind 'end_to_end', or match first in a run of its own");
  }
  if (memory.focus.local != compress::Local::window || memory.focus.history != compress::History::all) {
    fail<ConfigError>(
        "stages of kind 'match' need focus.local 'window' and focus.history 'all': they compare all entries "
        "of the past with the bases of "
        "all "
        "closed windows; train other visibilities with kind 'end_to_end'");
  }
}

Tensor match_weight(const MatchConfig& config, const compress::WindowPlan& plan, const Tensor& weights_BL,
                    int64_t draw) {
  Tensor total = at::zeros({}, weights_BL.options().dtype(at::kDouble));
  for (int64_t window = 1; plan.window(window).begin < weights_BL.size(1); ++window) {
    const Rows rows = query_rows(config, plan.window(window), weights_BL.size(1), draw);
    if (!rows.empty())
      total = total + weights_BL.index_select(1, rows.on(weights_BL.device()) + 1).sum(at::kDouble);
  }
  return total;
}

MatchSum match_sum(const MatchConfig& config, model::Backbone& backbone,
                   const compress::FocusAdapter& adapter, const Tensor& tokens_BL, const Tensor& weights_BL,
                   int64_t draw) {
  MatchHook hook(config, adapter, weights_BL, draw);
  {
    const at::NoGradGuard frozen;
    backbone.forward_embedded(backbone.embed(tokens_BL), nullptr, &hook);
  }
  return hook.result();
}

}  // namespace focus::train
