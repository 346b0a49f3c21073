#include "hyena_cpu.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "focus/kernels/hyena.h"
#include "focus/ops/tracked.h"

namespace focus::ops {
namespace {

using at::Tensor;
using kernels::Bf16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;

constexpr int64_t kContext = 2;     // rows that the input filter looks back
constexpr int64_t kWork = 1 << 17;  // multiplications of one thread at the least
constexpr int64_t kMostBlocks = 4;  // of channels, for one call of the kernel

/// What the kernels read, contiguous; before and inner, skip and taps or modes may be undefined.
struct Inputs {
  Tensor z, input_taps, taps, skip, before, inner, poles, poles_rest, residues;
  bool newest_first = false;

  int64_t length() const { return z.size(1); }
  int64_t channels() const { return z.size(2) / 3; }
  bool has_modes() const { return !taps.defined(); }
  /// Rows of p, or modes, that are carried on.
  int64_t carried() const { return has_modes() ? residues.size(1) : taps.size(1) - 1; }
};

Inputs inputs_of(const Tensor& z, const HyenaFilters& f, const Tensor& before, const Tensor& inner) {
  const auto whole = [](const Tensor& x) { return x.defined() ? x.contiguous() : x; };
  Inputs in{z.contiguous(),
            f.input_taps.contiguous(),
            whole(f.taps),
            whole(f.skip),
            whole(before),
            whole(inner),
            {},
            {},
            whole(f.residues),
            f.newest_first};
  if (in.has_modes()) {
    const Tensor exact = f.log_poles.to(at::kDouble).exp();
    in.poles = exact.to(at::kFloat).contiguous();
    in.poles_rest = (exact - in.poles).to(at::kFloat).contiguous();
  }
  return in;
}

/// Where batch b of x begins; null if x is undefined.
template <class T>
const T* data(const Tensor& x, int64_t b = 0) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) + b * x.stride(0) : nullptr;
}
template <class T>
T* output(const Tensor& x, int64_t b = 0) {
  return x.defined() ? static_cast<T*>(x.mutable_data_ptr()) + b * x.stride(0) : nullptr;
}

template <class T>
kernels::Hyena<T> arguments(const Inputs& in, int64_t b) {
  const bool modes = in.has_modes();
  return {.z = data<T>(in.z, b),
          .before = data<T>(in.before, b),
          .input_taps = data<T>(in.input_taps),
          .skip = data<T>(in.skip),
          .length = in.length(),
          .channels = in.channels(),
          .taps = data<T>(in.taps),
          .num_taps = modes ? 0 : in.taps.size(1),
          .run = modes ? 0 : in.channels() / in.taps.size(0),
          .newest_first = in.newest_first,
          .p_before = modes ? nullptr : data<T>(in.inner, b),
          .poles = data<float>(in.poles),
          .poles_rest = data<float>(in.poles_rest),
          .residues = data<float>(in.residues),
          .initial = modes ? data<float>(in.inner, b) : nullptr,
          .num_modes = modes ? in.residues.size(1) : 0};
}

/// Calls run(task, first channel, end) for each of `tasks` and all channels.
template <class F>
void for_channels(int64_t tasks, const Inputs& in, const F& run) {
  constexpr int64_t kBlock = kernels::kHyenaChannels;
  const int64_t blocks = (in.channels() + kBlock - 1) / kBlock;
  const int64_t together = std::clamp<int64_t>(tasks * blocks / at::get_num_threads(), 1, kMostBlocks);
  const int64_t groups = (blocks + together - 1) / together, width = together * kBlock;
  const int64_t work = width * (in.length() + 1) * (16 + 3 * in.carried());
  at::parallel_for(0, tasks * groups, std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t channel = i % groups * width;
      run(i / groups, channel, std::min(in.channels(), channel + width));
    }
  });
}

struct Outputs {
  Tensor y, last, inner, states;  // states: for the gradient
};

template <class T>
Outputs forward_as(const Inputs& in, bool with_states) {
  const int64_t batch = in.z.size(0), length = in.length(), channels = in.channels();
  const auto wide = in.z.options().dtype(at::kFloat);
  Outputs out;
  out.y = at::empty({batch, length, channels}, in.z.options());
  out.last = at::empty({batch, kContext, 3 * channels}, in.z.options());
  out.inner = at::empty({batch, in.carried(), channels}, in.has_modes() ? wide : in.z.options());
  if (in.has_modes() && with_states) {
    const int64_t tiles = (length + kernels::kScanBlock - 1) / kernels::kScanBlock;
    out.states = at::empty({batch, tiles, in.carried(), channels}, wide);
  }
  const int64_t rows = std::min(length, kContext), early = kContext - rows;
  out.last.narrow(1, early, rows).copy_(in.z.narrow(1, length - rows, rows));
  if (early > 0 && in.before.defined()) {
    out.last.narrow(1, 0, early).copy_(in.before.narrow(1, rows, early));
  } else if (early > 0) {
    out.last.narrow(1, 0, early).zero_();
  }
  for_channels(batch, in, [&](int64_t b, int64_t begin, int64_t end) {
    kernels::hyena<T>({.in = arguments<T>(in, b),
                       .y = output<T>(out.y, b),
                       .p_last = in.has_modes() ? nullptr : output<T>(out.inner, b),
                       .final = in.has_modes() ? output<float>(out.inner, b) : nullptr,
                       .states = output<float>(out.states, b)},
                      begin, end);
  });
  return out;
}
Outputs forward_of(const Inputs& in, bool with_states) {
  return in.z.scalar_type() == at::kFloat ? forward_as<float>(in, with_states)
                                          : forward_as<Bf16>(in, with_states);
}

struct Gradients {
  Tensor z, before, inner, input_taps_3C, skip_D, taps_KD, poles_ND, residues_ND;
};

/// Writes all that is defined of `to`; filters' gradients are added to.
template <class T>
void backward_as(const Inputs& in, const Tensor& states, const Tensor& dy, const Tensor& dlast,
                 const Tensor& dinner, const Gradients& to) {
  const bool modes = in.has_modes();
  for_channels(1, in, [&](int64_t, int64_t begin, int64_t end) {
    // In order, so that sums over the batch do not depend on the number of threads.
    for (int64_t b = 0; b < in.z.size(0); ++b) {
      kernels::hyena_gradient<T>({.in = arguments<T>(in, b),
                                  .states = data<float>(states, b),
                                  .dy = data<T>(dy, b),
                                  .dlast = data<T>(dlast, b),
                                  .dp_last = modes ? nullptr : data<T>(dinner, b),
                                  .dfinal = modes ? data<float>(dinner, b) : nullptr,
                                  .dz = output<T>(to.z, b),
                                  .dbefore = output<T>(to.before, b),
                                  .dp_before = modes ? nullptr : output<T>(to.inner, b),
                                  .dinitial = modes ? output<float>(to.inner, b) : nullptr,
                                  .dinput_taps = output<float>(to.input_taps_3C),
                                  .dskip = output<float>(to.skip_D),
                                  .dtaps = output<float>(to.taps_KD),
                                  .dpoles = output<float>(to.poles_ND),
                                  .dresidues = output<float>(to.residues_ND)},
                                 begin, end);
    }
  });
}

Tensor given(const Maybe& x) { return x.value_or(Tensor()); }
Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : std::nullopt; }

struct HyenaOnCpu : torch::autograd::Function<HyenaOnCpu> {
  static variable_list forward(AutogradContext* ctx, const Tensor& z, const Tensor& input_taps,
                               const Maybe& taps, const Maybe& skip, const Maybe& log_poles,
                               const Maybe& residues, const Maybe& before, const Maybe& inner,
                               bool newest_first) {
    const HyenaFilters f{input_taps,       given(taps),     newest_first,
                         given(log_poles), given(residues), given(skip)};
    const Outputs out = forward_of(inputs_of(z, f, given(before), given(inner)), true);
    ctx->save_for_backward(
        {z, input_taps, f.taps, f.skip, f.log_poles, f.residues, given(before), given(inner), out.states});
    ctx->saved_data["newest_first"] = newest_first;
    ctx->set_materialize_grads(false);
    return {out.y, out.last, out.inner};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const HyenaFilters f{saved[1], saved[2], ctx->saved_data["newest_first"].toBool(),
                         saved[4], saved[5], saved[3]};
    const Inputs in = inputs_of(saved[0], f, saved[6], saved[7]);
    const auto asked = [](const Tensor& x) { return x.defined() && x.requires_grad(); };
    const auto zeros = [&](bool wanted, at::IntArrayRef sizes) {
      return wanted ? at::zeros(sizes, in.z.options().dtype(at::kFloat)) : Tensor();
    };
    const auto room = [](const Tensor& like) { return like.defined() ? at::empty_like(like) : like; };
    for (Tensor& grad : grads)
      if (grad.defined()) grad = grad.contiguous();
    const int64_t channels = in.channels(), kept = in.carried();
    const bool modes = in.has_modes(), of_modes = asked(f.log_poles) || asked(f.residues);
    const Gradients to{room(in.z),
                       room(in.before),
                       room(in.inner),
                       zeros(asked(f.input_taps), {kContext + 1, 3 * channels}),
                       zeros(asked(f.skip), {channels}),
                       zeros(asked(f.taps), {kept + 1, channels}),
                       zeros(of_modes, {kept, channels}),
                       zeros(of_modes, {kept, channels})};
    (in.z.scalar_type() == at::kFloat ? backward_as<float> : backward_as<Bf16>)(in, saved[8], grads[0],
                                                                                grads[1], grads[2], to);
    const auto typed = [&](const Tensor& x) { return x.to(in.z.scalar_type()); };
    Tensor dtaps;
    if (to.taps_KD.defined()) {
      const Tensor by_filter = to.taps_KD.view({kept + 1, f.taps.size(0), -1}).sum(-1).t();
      dtaps = typed(f.newest_first ? by_filter.flip(1) : by_filter);
    }
    return {to.z,
            to.input_taps_3C.defined() ? typed(to.input_taps_3C.t()) : Tensor(),
            dtaps,
            to.skip_D.defined() ? typed(to.skip_D) : Tensor(),
            modes && of_modes ? to.poles_ND.t() * in.poles : Tensor(),  // d log a = a da
            modes && of_modes ? to.residues_ND.t() : Tensor(),
            to.before,
            to.inner,
            Tensor()};
  }
};

}  // namespace

int64_t max_inner_taps_on_cpu() { return kernels::kMaxHyenaTaps; }
int64_t max_modes_on_cpu() { return kernels::kMaxModes; }

HyenaOutput hyena_on_cpu(const Tensor& z, const HyenaFilters& f, const Tensor& fir, const Tensor& inner) {
  if (!tracked({z, f.input_taps, f.taps, f.skip, f.log_poles, f.residues, fir, inner})) {
    const Outputs out = forward_of(inputs_of(z, f, fir, inner), false);
    return {out.y, out.last, out.inner};
  }
  const auto out = HyenaOnCpu::apply(z, f.input_taps, maybe(f.taps), maybe(f.skip), maybe(f.log_poles),
                                     maybe(f.residues), maybe(fir), maybe(inner), f.newest_first);
  return {out[0], out[1], out[2]};
}

}  // namespace focus::ops
