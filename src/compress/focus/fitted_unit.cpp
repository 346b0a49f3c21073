#include "focus/compress/focus/fitted_unit.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "focus/core/error.h"
#include "held_out_check.h"
#include "kmer_entries.h"
#include "log_mass_fit.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr double kFaintestShare = 1e-30;  // in the heaviest base of its k-mer: a mean needs a number

/// Which bases the references measure: made once for all windows with these k-mers.
struct Measures {
  Tensor hidden;          // [R, m, kmax] bool: not there, or left out of a k-mer with others
  Tensor alone;           // [R, m] bool: nothing of the k-mer but what should be left out
  Tensor log_unmeasured;  // [R, m] fp64
};
Measures measures_of(const ClosedSpan& span, const FittedUnitConfig& config) {
  const int64_t bases = span.num_bases(), group = span.q.size(1) / span.k.size(1);
  const Kmers::Table& table = span.kmers.table(at::kCPU);
  const auto once = [&](int64_t what, const std::function<Tensor(const Tensor&)>& make) {
    return span.kmers.list(
        {bases, config.reference_stride, config.leave_out, group, what}, span.k.device(), [&] {
          const Tensor own = at::arange(0, bases, config.reference_stride, at::kLong).repeat({group});
          return make(near_own({{}, own}, bases, config.leave_out)
                          .index_select(1, table.index.flatten())
                          .unflatten(1, table.index.sizes()));
        });
  };
  return {once(0, [&](const Tensor& near) { return measured(table.exists, near).logical_not(); }),
          once(1,
               [&](const Tensor& near) {
                 return table.exists.logical_and(near.logical_not()).any(-1).logical_not();
               }),
          once(2, [&](const Tensor& near) {
            return log_unmeasured(table.exists, measured(table.exists, near), at::kDouble);
          })};
}

/// Bases that are entries themselves, [B, G, m, slots] indices into a k-mer's bases, and which bases are left
/// to the fit, [B, G, m, kmax]. A k-mer with more bases than slots has its last slot for the fit; in a
/// shorter one every base is an entry, and `fitted` names one all the same, so that the fit, which nobody
/// reads, stays finite.
struct Heavy {
  Tensor bases, fitted;
};
Heavy heaviest(const Tensor& share, const Tensor& exists, int64_t slots) {
  Tensor fitted = exists.expand(share.sizes());
  if (slots == 1) return {Tensor(), fitted};
  const Tensor bases = std::get<1>(share.masked_fill(exists.logical_not(), -1.0).topk(slots, -1));
  const Tensor taken = at::zeros_like(fitted).scatter(-1, bases.narrow(-1, 0, slots - 1), true);
  fitted = fitted.logical_and(taken.logical_not());
  const Tensor none = fitted.any(-1, true).logical_not();
  return {bases, fitted.logical_or(none.logical_and(exists))};
}

/// Puts each k-mer's exact entries before its fitted one; a k-mer of no more bases than slots has exact ones
/// only. Returns the base of each entry, -1 for a fit, [B, G, entries].
Tensor add_heavy(const Heavy& heavy, const Tensor& keys, const Tensor& values, const ClosedSpan& span,
                 Entries& entries) {
  const int64_t slots = heavy.bases.size(-1), dim = keys.size(-1);
  const Tensor chosen = heavy.bases.unsqueeze(-1).expand({-1, -1, -1, -1, dim});
  const auto count = static_cast<int64_t>(span.kmers.size());
  const auto order = [&] {  // into [exact slots of all k-mers, fits]
    std::vector<int64_t> out;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t size = span.kmers[static_cast<std::size_t>(j)].size();
      for (int64_t slot = 0; slot < std::min(slots, size); ++slot)
        out.push_back(slot == slots - 1 && size > slots ? count * slots + j : j * slots + slot);
    }
    return at::tensor(out, at::kLong);
  };
  const Tensor& index = span.kmers.list({slots}, keys.device(), order);
  const auto join = [&](const Tensor& exact, const Tensor& fits) {
    return at::cat({exact.to(fits.scalar_type()).flatten(2, 3), fits}, 2).index_select(2, index);
  };
  entries.k = join(keys.gather(3, chosen), entries.k);
  entries.v = join(values.gather(3, chosen), entries.v);
  entries.beta = join(at::zeros(heavy.bases.sizes(), entries.beta.options()), entries.beta);
  const Tensor& of_kmers = span.kmers.table(keys.device()).index;
  const Tensor bases =
      of_kmers.expand({heavy.bases.size(0), heavy.bases.size(1), -1, -1}).gather(-1, heavy.bases);
  return join(bases, at::full({bases.size(0), bases.size(1), count}, -1, bases.options()));
}

}  // namespace

FittedUnit::FittedUnit(const FocusConfig& layer, const model::BackboneShape& shape) : config_(layer) {
  if (!config_.fitted.corrections) return;
  const int64_t width = shape.width, channels = shape.num_kv_heads * shape.head_dim;
  key = register_module("key", std::make_shared<LowRankMap>(width, channels, config_.rank));
  value = register_module("value", std::make_shared<LowRankMap>(width, channels, config_.rank));
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
  const References own = references(span, every_base(span, config_.fitted.reference_stride));
  const Tensor ahead = config_.fitted.gradient ? own.q : own.q.detach();  // [B, G, R, E]
  const Kmers::Table& table = span.kmers.table(span.k.device());
  const Tensor &index = table.index, &exists = table.exists;
  const auto by_kmer = [&](const Tensor& t) {  // [B, G, m, kmax, E]
    return t.index_select(2, index.flatten()).unflatten(2, index.sizes());
  };
  const Tensor keys = by_kmer(k), values = by_kmer(v);
  const int64_t slots = std::min(config_.entries_per_kmer, index.size(1));
  // The scores of a window are its largest arrays: what need not be kept of them is overwritten.
  const Tensor scores = at::matmul(ahead * scale, keys.flatten(2, 3).transpose(-1, -2))
                            .unflatten(-1, index.sizes());  // [B, G, R, m, kmax]
  const Measures measures = measures_of(span, config_.fitted);
  const Tensor counted = slots == 1 ? scores.masked_fill_(measures.hidden, kNothing)
                                    : scores.masked_fill(measures.hidden, kNothing);
  const Tensor in_kmer = at::softmax(counted, -1), log_counted = log_sum(counted, in_kmer).squeeze(-1);
  // Each base's share in the span's attention, all references together: its k-mer's share times its own
  // within that. Only ratios within a k-mer matter, and none can underflow to nothing in all its bases.
  const Tensor log_weight = at::log_softmax(log_counted.masked_fill(measures.alone, kLeftOut), -1);
  const Tensor weight = (log_weight - log_weight.detach().amax(2, true)).exp().unsqueeze(-1);
  const Tensor share = (in_kmer.requires_grad() ? in_kmer * weight : in_kmer.mul_(weight))
                           .sum(2)
                           .clamp_min(kFaintestShare);  // [B, G, m, kmax]

  // The heaviest bases of each k-mer are entries themselves; the fit is of the others.
  const Heavy heavy = heaviest(share.detach(), exists, slots);
  const Tensor rest = share * heavy.fitted, rest_share = rest / rest.sum(-1, true);
  const auto near = [&] {  // [R, m, kmax]
    return near_own(own, bases, config_.fitted.leave_out)
        .index_select(1, index.flatten())
        .unflatten(1, index.sizes());
  };
  const Tensor log_mass = slots == 1 ? log_counted + measures.log_unmeasured.to(options)  // [B, G, R, m]
                                     : log_mass_of(scores, heavy.fitted.unsqueeze(2), near());
  const Tensor fitted = heavy.fitted.to(k.scalar_type());
  const Tensor mean_key =
      at::matmul((fitted / fitted.sum(-1, true)).unsqueeze(-2), keys).squeeze(-2);  // [B, G, m, E]

  const FittedKeys fit = regress_keys(ahead, mean_key, log_mass, config_.fitted.ridge);
  Tensor value_out = at::matmul(rest_share.unsqueeze(-2), values).squeeze(-2);
  // The closed form is what is judged, so that the decision stays as it is while corrections are trained.
  Entries judged = {.k = fit.key, .v = value_out, .beta = fit.beta};
  if (config_.fitted.check) {
    const Tensor fits = (slots == 1 ? exists.view({1, 1, -1}) : heavy.fitted.flatten(2)).to(at::kLong);
    const Tensor none = at::zeros({fits.size(0), fits.size(1), bases}, fits.options());
    check_entries(span, none.index_add(2, index.flatten(), fits).gt(0), {}, config_.fitted, judged);
  }
  Tensor key_out = judged.k, beta = judged.beta;
  if (key) {
    const Tensor hidden = span.focus_x.defined() ? span.pre_norm.forward(span.focus_x).to(options)
                                                 : at::matmul(span.kmers.mean_matrix(bases, options),
                                                              span.u_BND.to(options));  // [B, m, D]
    const int64_t heads = k.size(1);
    key_out = key_out + span.attention.rotate(to_heads(key->forward(hidden), heads),
                                              anchor_positions(span, config_.anchor));
    value_out = value_out + to_heads(value->forward(hidden), heads);
    beta = beta + at::linear(hidden, beta_weight.to(options), beta_bias.to(options)).transpose(1, 2);
  }
  Summary out;
  out.entries = {.k = key_out.to(span.k.scalar_type()),
                 .v = value_out.to(span.v.scalar_type()),
                 .beta = beta,
                 .origin = kmer_origins(span, config_.entries_per_kmer)};
  if (slots > 1) {
    const Tensor made_of = add_heavy(heavy, keys, values, span, out.entries);
    if (config_.fitted.check) {
      add_heavy(heavy, keys, values, span, judged);
      check_entries(span, {}, made_of, config_.fitted, judged);
      out.entries.beta = out.entries.beta.masked_fill(judged.beta.le(kSwitchedOff), kSwitchedOff);
    }
  }
  FOCUS_CHECK(out.entries.k.size(2) == static_cast<int64_t>(out.entries.origin.size()),
              "every entry has its k-mer");
  return out;
}

std::shared_ptr<FocusUnit> FittedUnit::with(const FocusConfig& layer) const {
  const auto out = std::make_shared<FittedUnit>(*this);
  out->config_ = layer;
  return out;
}

}  // namespace focus::compress
