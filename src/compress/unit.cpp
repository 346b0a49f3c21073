#include "focus/compress/unit.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "focus/core/error.h"
#include "focus/ops/attention.h"
#include "focus/ops/shared_heads.h"
#include "log_mass_fit.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

Tensor anchor_positions(const ClosedSpan& span, Anchor anchor) {
  std::vector<double> at_positions;
  const Tensor positions = span.positions.to(at::kCPU, at::kDouble).contiguous();
  const double* p = positions.const_data_ptr<double>();
  for (const Span& kmer : span.kmers) {
    const double first = p[kmer.begin], last = p[kmer.end - 1];
    at_positions.push_back(anchor == Anchor::end ? last : anchor == Anchor::start ? first : (first + last) / 2);
  }
  return at::tensor(at_positions, at::kDouble).to(span.positions.device());
}

void set_origin(const ClosedSpan& span, int64_t entries_per_kmer, Entries& entries) {
  for (std::size_t j = 0; j < span.kmers.size(); ++j) {
    for (int64_t slot = 0; slot < std::min(entries_per_kmer, span.kmers[j].size()); ++slot)
      entries.origin.push_back({span.window, span.first_kmer + static_cast<int64_t>(j)});
  }
}

Tensor log_sizes(const ClosedSpan& span, const Tensor& like) {
  std::vector<double> sizes;
  for (const Span& kmer : span.kmers) sizes.push_back(std::log(static_cast<double>(kmer.size())));
  return at::tensor(sizes, at::kDouble).to(compute_options(like));
}

/// [m, kmax] indices of each k-mer's bases and the mask of those that exist.
std::pair<Tensor, Tensor> kmer_table(const ClosedSpan& span) {
  int64_t longest = 0;
  for (const Span& kmer : span.kmers) longest = std::max(longest, kmer.size());
  const auto count = static_cast<int64_t>(span.kmers.size());
  Tensor index = at::zeros({count, longest}, at::kLong), exists = at::zeros({count, longest}, at::kBool);
  for (int64_t j = 0; j < count; ++j) {
    const Span& kmer = span.kmers[static_cast<std::size_t>(j)];
    index[j].narrow(0, 0, kmer.size()).copy_(at::arange(kmer.begin, kmer.end));
    exists[j].narrow(0, 0, kmer.size()).fill_(true);
  }
  return {index.to(span.k.device()), exists.to(span.k.device())};
}

/// Bases that are entries themselves, [B, G, m, slots] indices into a k-mer's bases, and which bases are left to the fit, [B, G, m, kmax].
/// A k-mer with more bases than slots has its last slot for the fit; in a shorter one every base is an entry, and `fitted` names one all
/// the same, so that the fit, which nobody reads, stays finite.
struct Heavy {
  Tensor bases, fitted;
};
Heavy heaviest(const Tensor& log_share, const Tensor& exists, int64_t slots) {
  Tensor fitted = exists.expand(log_share.sizes());
  if (slots == 1) return {Tensor(), fitted};
  const Tensor bases = std::get<1>(log_share.topk(slots, -1));
  const Tensor taken = at::zeros_like(fitted).scatter(-1, bases.narrow(-1, 0, slots - 1), true);
  fitted = fitted.logical_and(taken.logical_not());
  const Tensor none = fitted.any(-1, true).logical_not();
  return {bases, fitted.logical_or(none.logical_and(exists))};
}

/// Puts each k-mer's exact entries before its fitted one; a k-mer of no more bases than slots has exact ones only.
void add_heavy(const Heavy& heavy, const Tensor& keys, const Tensor& values, const ClosedSpan& span, Entries& entries) {
  const int64_t slots = heavy.bases.size(-1), dim = keys.size(-1);
  const Tensor chosen = heavy.bases.unsqueeze(-1).expand({-1, -1, -1, -1, dim});
  std::vector<int64_t> order;  // into [exact slots of all k-mers, fits]
  const auto count = static_cast<int64_t>(span.kmers.size());
  for (int64_t j = 0; j < count; ++j) {
    const int64_t size = span.kmers[static_cast<std::size_t>(j)].size();
    for (int64_t slot = 0; slot < std::min(slots, size); ++slot)
      order.push_back(slot == slots - 1 && size > slots ? count * slots + j : j * slots + slot);
  }
  const Tensor index = at::tensor(order, at::kLong).to(keys.device());
  const auto join = [&](const Tensor& exact, const Tensor& fits) {
    return at::cat({exact.to(fits.scalar_type()).flatten(2, 3), fits}, 2).index_select(2, index);
  };
  entries.k = join(keys.gather(3, chosen), entries.k);
  entries.v = join(values.gather(3, chosen), entries.v);
  entries.beta = join(at::zeros(heavy.bases.sizes(), entries.beta.options()), entries.beta);
}

/// [B, m, C] -> [B, heads, m, C / heads].
Tensor to_heads(const Tensor& x_BMD, int64_t heads) { return x_BMD.unflatten(-1, {heads, -1}).transpose(1, 2); }

}  // namespace

LowRankMap::LowRankMap(int64_t in, int64_t out, int64_t rank) {
  if (rank == 0 || rank >= std::min(in, out)) {
    full = register_parameter("full", at::zeros({out, in}));
  } else {
    down = register_parameter("down", at::zeros({rank, in}));
    up = register_parameter("up", at::zeros({out, rank}));
  }
}

Tensor LowRankMap::matrix() const { return full.defined() ? full : at::matmul(up, down); }

Tensor LowRankMap::forward(const Tensor& x) const {
  if (full.defined()) return at::linear(x, full.to(x.scalar_type()));
  return at::linear(at::linear(x, down.to(x.scalar_type())), up.to(x.scalar_type()));
}

FittedUnit::FittedUnit(const FocusConfig& config, const model::BackboneShape& shape) : config_(config) {
  if (!config.fitted.corrections) return;
  const int64_t width = shape.width, channels = shape.num_kv_heads * shape.head_dim;
  key = register_module("key", std::make_shared<LowRankMap>(width, channels, config.rank));
  value = register_module("value", std::make_shared<LowRankMap>(width, channels, config.rank));
  beta_weight = register_parameter("beta_weight", at::zeros({shape.num_kv_heads, width}));
  beta_bias = register_parameter("beta_bias", at::zeros({shape.num_kv_heads}));
}

Summary FittedUnit::summarise(const ClosedSpan& span, const Entries&) const {
  const auto options = compute_options(span.k);
  const double scale = 1.0 / std::sqrt(static_cast<double>(span.k.size(-1)));
  Tensor k = span.k.to(options), v = span.v.to(options);
  if (!config_.fitted.gradient) {
    k = k.detach();
    v = v.detach();
  }
  const int64_t bases = span.num_bases();
  Tensor ahead = future_queries(span, config_.fitted.reference_stride);  // [B, G, R, E]
  if (!config_.fitted.gradient) ahead = ahead.detach();
  const Tensor scores = at::matmul(ahead, k.transpose(-1, -2)) * scale;  // [B, G, R, n]
  const auto [index, exists] = kmer_table(span);
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  const auto by_kmer = [&, index = index](const Tensor& t) { return t.index_select(-1, index.flatten()).unflatten(-1, index.sizes()); };
  // Share of each base in the span's attention, from log sums: no k-mer can underflow to nothing.
  const Tensor log_share =
      by_kmer(at::logsumexp(scores - at::logsumexp(scores, -1, true), 2)).masked_fill(exists.logical_not(), kNothing);  // [B, G, m, kmax]

  // The heaviest bases of each k-mer are entries themselves; the fit is of the others.
  const int64_t slots = std::min(span.entries_per_kmer, index.size(1));
  const Heavy heavy = heaviest(log_share.detach(), exists, slots);
  const Tensor rest_share = at::softmax(log_share.masked_fill(heavy.fitted.logical_not(), kNothing), -1);
  const Tensor log_mass =
      at::logsumexp(by_kmer(scores).masked_fill(heavy.fitted.logical_not().unsqueeze(2), kNothing), -1);  // [B, G, R, m]
  const Tensor keys = k.index_select(2, index.flatten()).unflatten(2, index.sizes());                     // [B, G, m, kmax, E]
  const Tensor values = v.index_select(2, index.flatten()).unflatten(2, index.sizes());                   // [B, G, m, kmax, E]
  const Tensor fitted = heavy.fitted.to(k.scalar_type());
  const Tensor mean_key = at::matmul((fitted / fitted.sum(-1, true)).unsqueeze(-2), keys).squeeze(-2);  // [B, G, m, E]

  const FittedKeys fit = regress_keys(ahead, mean_key, log_mass, config_.fitted.ridge);
  Tensor key_out = fit.key, beta = fit.beta;
  Tensor value_out = at::matmul(rest_share.unsqueeze(-2), values).squeeze(-2);
  if (key) {
    const Tensor hidden = span.focus_x.defined()
                              ? span.pre_norm.forward(span.focus_x).to(options)
                              : at::matmul(mean_matrix(span.kmers, bases, options), span.u_BND.to(options));  // [B, m, D]
    const int64_t heads = k.size(1);
    key_out = key_out + span.attention.rotate(to_heads(key->forward(hidden), heads), anchor_positions(span, config_.anchor));
    value_out = value_out + to_heads(value->forward(hidden), heads);
    beta = beta + at::linear(hidden, beta_weight.to(options), beta_bias.to(options)).transpose(1, 2);
  }
  Summary out;
  out.entries = {.k = key_out.to(span.k.scalar_type()), .v = value_out.to(span.v.scalar_type()), .beta = beta, .origin = {}};
  if (slots > 1) add_heavy(heavy, keys, values, span, out.entries);
  set_origin(span, span.entries_per_kmer, out.entries);
  FOCUS_CHECK(out.entries.k.size(2) == static_cast<int64_t>(out.entries.origin.size()), "every entry has its k-mer");
  return out;
}

PaperUnit::PaperUnit(const FocusConfig& config, const model::BackboneShape& shape) : config_(config) {
  const int64_t width = shape.width, queries = shape.num_heads * shape.head_dim, channels = shape.num_kv_heads * shape.head_dim;
  query = register_module("query", std::make_shared<LowRankMap>(width, queries, config.rank));
  key = register_module("key", std::make_shared<LowRankMap>(width, channels, config.rank));
  value = register_module("value", std::make_shared<LowRankMap>(width, channels, config.rank));
  output = register_module("output", std::make_shared<LowRankMap>(queries, width, config.rank));
  if (config.bias) beta_bias = register_parameter("beta_bias", at::zeros({shape.num_kv_heads}));
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
  Tensor k = attention.rotate(project(span.u_BND, 1, key.get()), span.positions), v = project(span.u_BND, 2, value.get());

  // Visible bases: those of the own k-mer, or all of the window up to its end.
  Tensor visible = at::zeros({static_cast<int64_t>(span.kmers.size()), bases}, at::kBool);
  for (std::size_t j = 0; j < span.kmers.size(); ++j) {
    const int64_t begin = config_.paper.focus_sees == FocusSees::kmer ? span.kmers[j].begin : 0;
    visible[static_cast<int64_t>(j)].narrow(0, begin, span.kmers[j].end - begin).fill_(true);
  }
  const auto bias_options = compute_options(span.u_BND);
  Tensor bias = at::zeros({visible.size(0), bases}, bias_options)
                    .masked_fill_(visible.logical_not().to(bias_options.device()), -std::numeric_limits<double>::infinity());
  if (!history.empty()) {
    k = at::cat({history.k.to(type), k}, 2);
    v = at::cat({history.v.to(type), v}, 2);
    const Tensor beta =
        history.beta.defined() ? history.beta.unsqueeze(2).to(bias_options) : at::zeros({1, 1, 1, history.size()}, bias_options);
    const Tensor past = beta.expand({q.size(0), kv_heads, q.size(2), history.size()});
    bias = ops::shared_heads(at::cat({past, bias.expand({q.size(0), kv_heads, q.size(2), bases})}, -1), heads);
  }
  const Tensor context = ops::attention(q, ops::shared_heads(k, heads), ops::shared_heads(v, heads), bias);
  const Tensor mixed = attention.output(context) + output->forward(context.transpose(1, 2).flatten(2));
  const Tensor updated = config_.paper.update == Update::residual ? span.focus_x + mixed : mixed;

  const Tensor u_entry = span.pre_norm.forward(updated);
  const bool own = config_.paper.entry == EntrySource::own;
  Summary out;
  out.focus_x = updated;
  out.entries.k = attention.rotate(project(u_entry, 1, own ? key.get() : nullptr), anchor_positions(span, config_.anchor));
  out.entries.v = project(u_entry, 2, own ? value.get() : nullptr);
  if (beta_bias.defined()) {
    out.entries.beta =
        (log_sizes(span, span.u_BND) + beta_bias.to(bias_options).unsqueeze(-1)).unsqueeze(0).expand({q.size(0), kv_heads, -1});
  }
  set_origin(span, 1, out.entries);
  return out;
}

}  // namespace focus::compress
