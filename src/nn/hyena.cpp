#include "focus/nn/hyena.h"

#include "focus/core/error.h"
#include "focus/nn/parameter.h"
#include "focus/ops/fir.h"
#include "focus/ops/hyena.h"
#include "focus/ops/modal_scan.h"

namespace focus::nn {
namespace {

using at::Tensor;

// `rows` of left context before x [B, L, C]: what the previous chunk left, or zeros at the start of a
// sequence.
Tensor with_context(const Tensor& x, const Tensor& carried, int64_t rows) {
  if (carried.defined()) return at::cat({carried.to(x.scalar_type()), x}, 1);
  return at::constant_pad_nd(x, {0, 0, rows, 0});
}

// The last rows of a padded input as storage of their own: a view would keep the whole activation alive.
Tensor last_rows(const Tensor& padded, int64_t rows) {
  return padded.narrow(1, padded.size(1) - rows, rows).clone();
}

at::ScalarType compute_type(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

HyenaFilter::HyenaFilter(const HyenaOptions& o) {
  if (o.width % o.groups != 0)
    fail<ConfigError>("hyena: ", o.groups, " filter groups do not divide width ", o.width);
  short_filter_weight =
      register_parameter("short_filter_weight", new_parameter({3 * o.width, 1, o.input_taps}));
  if (o.kind == HyenaKind::hcl) {
    log_poles = register_parameter("log_poles", new_parameter({o.width, o.modes, 1}));
    residues = register_parameter("residues", new_parameter({o.width, o.modes}));
  } else {
    h = register_parameter("h", new_parameter({o.groups, 1, o.taps}));
  }
  if (o.kind != HyenaKind::hcs) D = register_parameter("D", new_parameter({o.width}));
}

ops::HyenaFilters HyenaMixer::filters() const {
  ops::HyenaFilters f;
  f.input_taps = filter_->short_filter_weight.squeeze(1);
  f.skip = filter_->D;
  if (options_.kind == HyenaKind::hcl) {
    f.log_poles = filter_->log_poles.squeeze(-1);
    f.residues = filter_->residues;
  } else {
    f.taps = filter_->h.squeeze(1);
    f.newest_first = options_.kind == HyenaKind::hcm;  // a true convolution: tap 0 meets the newest base
  }
  return f;
}

Tensor HyenaMixer::forward(const Tensor& z_BLC, HyenaState* state) const {
  const auto type = z_BLC.scalar_type();
  const auto wide = compute_type(z_BLC);
  const int64_t width = options_.width, context = options_.input_taps - 1;

  if (const ops::HyenaFilters filters = this->filters(); ops::has_hyena(z_BLC, filters)) {
    const ops::HyenaOutput out = state != nullptr ? ops::hyena(z_BLC, filters, state->fir, state->inner)
                                                  : ops::hyena(z_BLC, filters, {}, {});
    if (state != nullptr) *state = {out.fir, out.inner};
    return out.y;
  }
  const Tensor z = with_context(z_BLC, state != nullptr ? state->fir : Tensor(), context);
  if (state != nullptr) state->fir = last_rows(z, context);
  // The input FIR is a cross-correlation: its last tap meets the newest base.
  const Tensor taps = filter_->short_filter_weight.squeeze(1).t().to(wide);
  const Tensor mixed = ops::causal_fir(z.to(wide), taps).to(type).unflatten(-1, {width, 3});
  const Tensor x2 = mixed.select(-1, 0), p = mixed.select(-1, 1) * mixed.select(-1, 2);

  Tensor y;
  if (options_.kind == HyenaKind::hcl) {
    auto [out, final] =
        ops::modal_scan(p.to(wide), filter_->log_poles.squeeze(-1).to(wide), filter_->residues.to(wide),
                        state != nullptr && state->inner.defined() ? state->inner.to(wide) : Tensor());
    if (state != nullptr) state->inner = final;
    y = out;
  } else {
    Tensor inner_taps = filter_->h.squeeze(1).to(wide);  // [groups, K]
    if (options_.kind == HyenaKind::hcm)
      inner_taps = inner_taps.flip(-1);  // true convolution: tap 0 meets the newest base
    inner_taps = inner_taps.repeat_interleave(width / options_.groups, 0).t();
    const Tensor padded = with_context(p, state != nullptr ? state->inner : Tensor(), options_.taps - 1);
    if (state != nullptr) state->inner = last_rows(padded, options_.taps - 1);
    y = ops::causal_fir(padded.to(wide), inner_taps);
  }
  if (filter_->D.defined()) y = at::addcmul(y, p.to(wide), filter_->D.to(wide));
  return x2 * y.to(type);
}

}  // namespace focus::nn
