#include "focus/compress/focus/paper_unit.h"

#include <cmath>
#include <limits>

#include "focus/ops/attention.h"
#include "focus/ops/shared_heads.h"
#include "kmer_entries.h"
#include "span_entries.h"

namespace focus::compress {

using at::Tensor;

PaperUnit::PaperUnit(const FocusConfig& layer, const model::BackboneShape& shape) : config_(layer) {
  const int64_t width = shape.width, queries = shape.num_heads * shape.head_dim,
                channels = shape.num_kv_heads * shape.head_dim;
  query = register_module("query", std::make_shared<LowRankMap>(width, queries, config_.rank));
  key = register_module("key", std::make_shared<LowRankMap>(width, channels, config_.rank));
  value = register_module("value", std::make_shared<LowRankMap>(width, channels, config_.rank));
  output = register_module("output", std::make_shared<LowRankMap>(queries, width, config_.rank));
  if (config_.bias) beta_bias = register_parameter("beta_bias", at::zeros({shape.num_kv_heads}));
}

Summary PaperUnit::summarise(const ClosedSpan& span, const Entries& history) const {
  const auto& attention = span.attention;
  const auto type = span.u_BND.scalar_type();
  const int64_t heads = attention.heads(), kv_heads = attention.kv_heads(), bases = span.num_bases();
  const auto project = [&](const Tensor& u, int64_t part, const LowRankMap* trained) {
    Tensor y = attention.project_part(u, part);
    if (trained != nullptr) y = y + trained->forward(u);
    return to_heads(y, part == 0 ? heads : kv_heads);
  };
  const Tensor u_focus = span.pre_norm.forward(span.focus_x);
  const Tensor q = attention.rotate(project(u_focus, 0, query.get()), span.focus_positions);
  Tensor k = attention.rotate(project(span.u_BND, 1, key.get()), span.positions),
         v = project(span.u_BND, 2, value.get());

  // Visible bases: those of the own k-mer, or all of the window up to its end.
  const Kmers::Table& table = span.kmers.table(span.u_BND.device());
  const Tensor base = at::arange(bases, table.lasts.options()).unsqueeze(0);
  Tensor hidden = base.gt(table.lasts.unsqueeze(1));  // [m, n]
  if (config_.paper.focus_sees == FocusSees::kmer)
    hidden = hidden.logical_or(base.lt(table.firsts.unsqueeze(1)));
  const auto bias_options = compute_options(span.u_BND);
  Tensor bias =
      at::zeros(hidden.sizes(), bias_options).masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  if (!history.empty()) {
    k = at::cat({history.k.to(type), k}, 2);
    v = at::cat({history.v.to(type), v}, 2);
    const Tensor beta = history.beta.defined() ? history.beta.unsqueeze(2).to(bias_options)
                                               : at::zeros({1, 1, 1, history.size()}, bias_options);
    const Tensor past = beta.expand({q.size(0), kv_heads, q.size(2), history.size()});
    bias =
        ops::shared_heads(at::cat({past, bias.expand({q.size(0), kv_heads, q.size(2), bases})}, -1), heads);
  }
  const Tensor context = ops::attention(q, ops::shared_heads(k, heads), ops::shared_heads(v, heads), bias);
  const Tensor mixed = attention.output(context) + output->forward(context.transpose(1, 2).flatten(2));
  const Tensor updated = config_.paper.update == Update::residual ? span.focus_x + mixed : mixed;

  const Tensor u_entry = span.pre_norm.forward(updated);
  const bool own = config_.paper.entry == EntrySource::own;
  Summary out;
  out.focus_x = updated;
  out.entries.k = attention.rotate(project(u_entry, 1, own ? key.get() : nullptr),
                                   anchor_positions(span, config_.anchor));
  out.entries.v = project(u_entry, 2, own ? value.get() : nullptr);
  if (beta_bias.defined()) {
    out.entries.beta = (table.log_sizes.to(bias_options) + beta_bias.to(bias_options).unsqueeze(-1))
                           .unsqueeze(0)
                           .expand({q.size(0), kv_heads, -1});
  }
  out.entries.origin = kmer_origins(span, 1);
  return out;
}

std::shared_ptr<FocusUnit> PaperUnit::with(const FocusConfig& layer) const {
  const auto out = std::make_shared<PaperUnit>(*this);
  out->config_ = layer;
  return out;
}

}  // namespace focus::compress
