#include "focus/ops/hyena.h"

#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "hyena_cpu.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kContext = 2;  // rows that the input filter looks back

Tensor zeros_unless(const Tensor& given, at::IntArrayRef sizes, const at::TensorOptions& options) {
  return given.defined() ? given : at::zeros(sizes, options);
}

// Sequences with rows before and after them, which are zeros; `rows` of them are written by a kernel.
Tensor padded(const Tensor& z, int64_t before, int64_t rows, int64_t after, int64_t columns) {
  const Tensor x = at::empty({z.size(0), before + rows + after, columns}, z.options());
  x.narrow(1, 0, before).zero_();
  x.narrow(1, before + rows, after).zero_();
  return x;
}

// One tensor of a gradient: the sum over its channels where these share a filter.
Tensor by_filter(const Tensor& dtaps_KC, const Tensor& like_GK, bool newest_first) {
  const Tensor d = dtaps_KC.view({dtaps_KC.size(0), like_GK.size(0), -1}).sum(-1).t();
  return (newest_first ? d.flip(1) : d).to(like_GK.scalar_type());
}

// The gradient of the input filter and of what came before it, from that of its outputs, which lies between
// two rows of zeros on each side.
struct InputGradient {
  Tensor z, before, taps;
};
InputGradient input_gradient(const DeviceKernels& kernels, const DeviceKernels::HyenaInput& in,
                             const Tensor& dmixed_padded, const Tensor& dlast, bool taps) {
  const int64_t length = in.z_BLC.size(1);
  const Tensor dz = kernels.fir(dmixed_padded, {in.taps_C3, true}, {}, false);
  if (dlast.defined()) dz.narrow(1, length, kContext).add_(dlast);
  InputGradient out{dz.narrow(1, kContext, length), dz.narrow(1, 0, kContext), {}};
  if (taps) {
    const Tensor before =
        zeros_unless(in.before, {in.z_BLC.size(0), kContext, in.z_BLC.size(2)}, in.z_BLC.options());
    out.taps = by_filter(
        kernels.fir_taps_gradient(at::cat({before, in.z_BLC}, 1), dmixed_padded.narrow(1, kContext, length)),
        in.taps_C3, false);
  }
  return out;
}

// An autograd function takes no undefined tensor. Those that may be missing come last and do not count where
// they are missing: needs_input_grad is asked for the first of them at most.
using Maybe = std::optional<Tensor>;
Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : std::nullopt; }
Tensor given(const Maybe& x) { return x.value_or(Tensor()); }

struct GatedFir : torch::autograd::Function<GatedFir> {
  static variable_list forward(AutogradContext* ctx, const Tensor& z, const Tensor& input_taps,
                               const Tensor& taps, const Maybe& skip, const Maybe& fir, const Maybe& inner,
                               bool newest_first) {
    ctx->save_for_backward({z, input_taps, taps, given(skip), given(fir), given(inner)});
    ctx->saved_data["newest_first"] = newest_first;
    const auto out = device_kernels(z)->hyena_fir({z, given(fir), input_taps}, {taps, newest_first},
                                                  given(skip), given(inner));
    return {out.y_BLD, out.last, out.inner};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &z = saved[0], &taps = saved[2], &skip = saved[3], &inner = saved[5];
    const DeviceKernels::HyenaInput in{z, saved[4], saved[1]};
    const bool newest_first = ctx->saved_data["newest_first"].toBool();
    const DeviceKernels& kernels = *device_kernels(z);
    const int64_t length = z.size(1), channels = z.size(2) / 3, back = taps.size(1) - 1;
    const Tensor dy = zeros_unless(grads[0], {z.size(0), length, channels}, z.options());

    const Tensor p = padded(z, back, length, 0, channels), dinner = padded(z, back, length, back, channels),
                 dinner_here = dinner.narrow(1, back, length);
    if (inner.defined()) p.narrow(1, 0, back).copy_(inner);
    kernels.hyena_split(in, dy, p.narrow(1, back, length), dinner_here);
    const Tensor filtered = kernels.fir(p, {taps, newest_first}, skip, false);
    // What p adds to later outputs comes back by the same filter the other way round.
    const Tensor dp = kernels.fir(dinner, {taps, !newest_first}, skip, true);
    if (grads[2].defined()) dp.narrow(1, length, back).add_(grads[2]);
    const Tensor dmixed = padded(z, kContext, length, kContext, z.size(2));
    kernels.hyena_gradient(in, dy, filtered, dp.narrow(1, back, length), dmixed.narrow(1, kContext, length));

    const InputGradient of_input = input_gradient(kernels, in, dmixed, grads[1], ctx->needs_input_grad(1));
    Tensor dtaps, dskip;
    if (ctx->needs_input_grad(2))
      dtaps = by_filter(kernels.fir_taps_gradient(p, dinner_here), taps, newest_first);
    if (skip.defined() && ctx->needs_input_grad(3)) {
      dskip =
          kernels.fir_taps_gradient(p.narrow(1, back, length), dinner_here).squeeze(0).to(skip.scalar_type());
    }
    return {of_input.z,
            of_input.taps,
            dtaps,
            dskip,
            in.before.defined() ? of_input.before : Tensor(),
            inner.defined() ? dp.narrow(1, 0, back) : Tensor(),
            Tensor()};
  }
};

struct GatedScan : torch::autograd::Function<GatedScan> {
  static variable_list forward(AutogradContext* ctx, const Tensor& z, const Tensor& input_taps,
                               const Tensor& log_poles, const Tensor& residues, const Tensor& initial,
                               const Maybe& skip, const Maybe& fir) {
    ctx->save_for_backward({z, input_taps, log_poles, residues, initial, given(skip), given(fir)});
    const auto out = device_kernels(z)->hyena_scan({z, given(fir), input_taps},
                                                   {log_poles, residues, given(skip)}, initial);
    return {out.y_BLD, out.last, out.inner};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &z = saved[0], &log_poles = saved[2], &residues = saved[3], &skip = saved[5];
    const DeviceKernels::HyenaInput in{z, saved[6], saved[1]};
    const DeviceKernels::Modes modes{log_poles, residues, skip};
    const DeviceKernels& kernels = *device_kernels(z);
    const int64_t length = z.size(1), channels = z.size(2) / 3;
    const Tensor dy = zeros_unless(grads[0], {z.size(0), length, channels}, z.options());

    const Tensor p = padded(z, 0, length, 0, channels), dinner = padded(z, 0, length, 0, channels);
    kernels.hyena_split(in, dy, p, dinner);
    const auto scan = kernels.scan(p, modes, saved[4]);
    const auto gradient = kernels.scan_gradient(p, dinner, modes, scan.states, grads[2],
                                                ctx->needs_input_grad(2) || ctx->needs_input_grad(3));
    const Tensor dmixed = padded(z, kContext, length, kContext, z.size(2));
    kernels.hyena_gradient(in, dy, scan.y_BLD, gradient.dp_BLD, dmixed.narrow(1, kContext, length));

    const InputGradient of_input = input_gradient(kernels, in, dmixed, grads[1], ctx->needs_input_grad(1));
    Tensor dskip;
    if (skip.defined() && ctx->needs_input_grad(5))
      dskip = kernels.fir_taps_gradient(p, dinner).squeeze(0).to(skip.scalar_type());
    const Tensor dlog_poles = gradient.dpoles_DN.defined() ? gradient.dpoles_DN * log_poles.exp() : Tensor();
    return {of_input.z,
            of_input.taps,
            dlog_poles,  // d log a = a da
            gradient.dresidues_DN,
            gradient.dinitial_BND,
            dskip,
            in.before.defined() ? of_input.before : Tensor()};
  }
};

}  // namespace

bool has_hyena(const Tensor& z, const HyenaFilters& f) {
  const DeviceKernels* kernels = device_kernels(z);
  if ((kernels == nullptr && !z.is_cpu()) ||
      (z.scalar_type() != at::kFloat && z.scalar_type() != at::kBFloat16))
    return false;
  const auto fits = [&](const Tensor& w, at::ScalarType type) {
    return !w.defined() || (w.scalar_type() == type && w.device() == z.device());
  };
  return f.input_taps.size(1) == kContext + 1 && fits(f.input_taps, z.scalar_type()) &&
         fits(f.taps, z.scalar_type()) && fits(f.skip, z.scalar_type()) && fits(f.log_poles, at::kFloat) &&
         fits(f.residues, at::kFloat) &&
         (f.taps.defined()
              ? f.taps.size(1) <= (kernels != nullptr ? kernels->max_inner_taps() : max_inner_taps_on_cpu())
              : f.log_poles.size(1) <= (kernels != nullptr ? kernels->max_modes() : max_modes_on_cpu()));
}

HyenaOutput hyena(const Tensor& z, const HyenaFilters& f, const Tensor& fir, const Tensor& inner) {
  const int64_t channels = f.input_taps.size(0) / 3;
  if (z.dim() != 3 || z.size(2) != 3 * channels || z.size(1) < 1 ||
      (f.taps.defined() ? channels % f.taps.size(0) != 0 : f.log_poles.size(0) != channels)) {
    fail<ShapeError>("hyena: z must be [B, L, 3 D] with L >= 1 and D = ", channels, " channels, got ",
                     z.sizes());
  }
  const auto carried = [&](const Tensor& x, int64_t rows, int64_t columns, const char* name) {
    if (x.defined() && x.sizes() != at::IntArrayRef{z.size(0), rows, columns})
      fail<ShapeError>("hyena: ", name, " must be [", z.size(0), ", ", rows, ", ", columns, "], got ",
                       x.sizes());
    return x.defined() ? x.to(z.scalar_type()) : x;
  };
  const Tensor before = carried(fir, kContext, 3 * channels, "the rows before z");
  const bool on_cpu = device_kernels(z) == nullptr;
  if (f.taps.defined()) {
    const Tensor p_before = carried(inner, f.taps.size(1) - 1, channels, "the values of p before");
    if (on_cpu) return hyena_on_cpu(z, f, before, p_before);
    const auto out = GatedFir::apply(z, f.input_taps, f.taps, maybe(f.skip), maybe(before), maybe(p_before),
                                     f.newest_first);
    return {out[0], out[1], out[2]};
  }
  const int64_t modes = f.log_poles.size(1);
  if (inner.defined() && inner.sizes() != at::IntArrayRef{z.size(0), channels, modes})
    fail<ShapeError>("hyena: the modes' states must be [B, D, N], got ", inner.sizes());
  const Tensor initial = inner.defined() ? inner.to(at::kFloat).transpose(1, 2).contiguous()
                                         : at::zeros({z.size(0), modes, channels}, f.log_poles.options());
  if (on_cpu) {
    const HyenaOutput out = hyena_on_cpu(z, f, before, initial);
    return {out.y, out.fir, out.inner.transpose(1, 2)};
  }
  const auto out =
      GatedScan::apply(z, f.input_taps, f.log_poles, f.residues, initial, maybe(f.skip), maybe(before));
  return {out[0], out[1], out[2].transpose(1, 2)};
}

}  // namespace focus::ops
