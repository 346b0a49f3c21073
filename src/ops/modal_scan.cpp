#include "focus/ops/modal_scan.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/kernels/channels.h"
#include "focus/kernels/modal_scan.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class F>
void for_channel_blocks(int64_t tasks_per_block, int64_t channels, const F& run) {
  const int64_t blocks = (channels + kernels::kChannelBlock - 1) / kernels::kChannelBlock;
  at::parallel_for(0, tasks_per_block * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c0 = task % blocks * kernels::kChannelBlock;
      run(task / blocks, c0, std::min(channels, c0 + kernels::kChannelBlock));
    }
  });
}

// Tensors here are mode-major: poles, residues [N, D]; states [B, N, D].
template <class T>
void forward_kernel(const Tensor& p, const Tensor& poles, const Tensor& rest, const Tensor& residues,
                    const Tensor& initial, Tensor& y, Tensor& final, Tensor& saved) {
  const int64_t length = p.size(1), channels = p.size(2), modes = poles.size(0);
  const int64_t saved_size = saved.defined() ? saved.size(1) * modes * channels : 0;
  for_channel_blocks(p.size(0), channels, [&](int64_t b, int64_t c0, int64_t c1) {
    kernels::modal_scan<T>(
        {p.const_data_ptr<T>() + b * length * channels, poles.const_data_ptr<T>(), rest.const_data_ptr<T>(),
         residues.const_data_ptr<T>(), initial.const_data_ptr<T>() + b * modes * channels,
         y.mutable_data_ptr<T>() + b * length * channels, final.mutable_data_ptr<T>() + b * modes * channels,
         saved.defined() ? saved.mutable_data_ptr<T>() + b * saved_size : nullptr, length, modes, channels},
        c0, c1);
  });
}

template <class T>
void backward_kernel(const Tensor& p, const Tensor& poles, const Tensor& residues, const Tensor& saved,
                     const Tensor& dy, const Tensor& dfinal, Tensor& dp, Tensor& dpoles, Tensor& dresidues,
                     Tensor& dinitial) {
  const int64_t batch = p.size(0), length = p.size(1), channels = p.size(2), modes = poles.size(0),
                saved_size = saved.size(1) * modes * channels;
  for_channel_blocks(1, channels, [&](int64_t, int64_t c0, int64_t c1) {
    for (int64_t b = 0; b < batch;
         ++b) {  // in order: sums over the batch do not depend on the number of threads
      kernels::modal_scan_gradient<T>(
          {p.const_data_ptr<T>() + b * length * channels, poles.const_data_ptr<T>(),
           residues.const_data_ptr<T>(), saved.const_data_ptr<T>() + b * saved_size,
           dy.const_data_ptr<T>() + b * length * channels, dfinal.const_data_ptr<T>() + b * modes * channels,
           dp.mutable_data_ptr<T>() + b * length * channels, dpoles.mutable_data_ptr<T>(),
           dresidues.mutable_data_ptr<T>(), dinitial.mutable_data_ptr<T>() + b * modes * channels, length,
           modes, channels},
          c0, c1);
    }
  });
}

struct Scan : torch::autograd::Function<Scan> {
  static variable_list forward(AutogradContext* ctx, const Tensor& p, const Tensor& log_poles,
                               const Tensor& residues, const Tensor& initial) {
    const Tensor exact = log_poles.to(at::kDouble).exp(), poles = exact.to(p.scalar_type()),
                 rest = (exact - poles).to(p.scalar_type());
    Tensor y = at::empty_like(p), final = at::empty_like(initial), saved;
    if (p.requires_grad() || log_poles.requires_grad() || residues.requires_grad() ||
        initial.requires_grad()) {
      const int64_t blocks = (p.size(1) + kernels::kScanBlock - 1) / kernels::kScanBlock;
      saved = at::empty({p.size(0), blocks, poles.size(0), p.size(2)}, p.options());
    }
    p.scalar_type() == at::kDouble
        ? forward_kernel<double>(p, poles, rest, residues, initial, y, final, saved)
        : forward_kernel<float>(p, poles, rest, residues, initial, y, final, saved);
    ctx->save_for_backward({p, poles, residues, saved});
    return {y, final};
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto kept = ctx->get_saved_variables();
    const Tensor &p = kept[0], &poles = kept[1], &residues = kept[2], &saved = kept[3];
    const Tensor dy = grads[0].defined() ? grads[0].contiguous() : at::zeros_like(p);
    const Tensor dfinal = grads[1].defined() ? grads[1].contiguous()
                                             : at::zeros({p.size(0), poles.size(0), p.size(2)}, p.options());
    Tensor dp = at::empty_like(p), dpoles = at::zeros_like(poles), dresidues = at::zeros_like(residues),
           dinitial = at::empty_like(dfinal);
    p.scalar_type() == at::kDouble
        ? backward_kernel<double>(p, poles, residues, saved, dy, dfinal, dp, dpoles, dresidues, dinitial)
        : backward_kernel<float>(p, poles, residues, saved, dy, dfinal, dp, dpoles, dresidues, dinitial);
    return {dp, dpoles.mul_(poles), dresidues, dinitial};  // d log a = a da
  }
};

// By a device's kernels, for fp32. Poles and residues stay [D, N].
struct DeviceScan : torch::autograd::Function<DeviceScan> {
  static variable_list forward(AutogradContext* ctx, const Tensor& p, const Tensor& log_poles,
                               const Tensor& residues, const Tensor& initial) {
    const auto out = device_kernels(p)->scan(p, {log_poles, residues, {}}, initial);
    ctx->save_for_backward({p, log_poles, residues, out.states});
    return {out.y_BLD, out.final_BND};
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto kept = ctx->get_saved_variables();
    const Tensor &p = kept[0], &log_poles = kept[1];
    const Tensor dy = grads[0].defined() ? grads[0] : at::zeros_like(p);
    const auto gradient =
        device_kernels(p)->scan_gradient(p, dy, {log_poles, kept[2], {}}, kept[3], grads[1],
                                         ctx->needs_input_grad(1) || ctx->needs_input_grad(2));
    return {gradient.dp_BLD,
            gradient.dpoles_DN.defined() ? gradient.dpoles_DN * log_poles.exp() : Tensor(),  // d log a = a da
            gradient.dresidues_DN, gradient.dinitial_BND};
  }
};

// In groups of as many modes as the kernels take.
std::pair<Tensor, Tensor> scan_on_device(const DeviceKernels& kernels, const Tensor& p,
                                         const Tensor& log_poles, const Tensor& residues,
                                         const Tensor& initial_BND) {
  Tensor y;
  std::vector<Tensor> final;
  for (int64_t n = 0; n < log_poles.size(1); n += kernels.max_modes()) {
    const int64_t modes = std::min(kernels.max_modes(), log_poles.size(1) - n);
    const auto out = DeviceScan::apply(p, log_poles.narrow(1, n, modes), residues.narrow(1, n, modes),
                                       initial_BND.narrow(1, n, modes));
    y = y.defined() ? y + out[0] : out[0];
    final.push_back(out[1]);
  }
  return {y, at::cat(final, 1).transpose(1, 2)};
}

void check(const Tensor& p, const Tensor& log_poles, const Tensor& residues, const Tensor& state) {
  if (p.dim() != 3 || log_poles.dim() != 2 || log_poles.size(0) != p.size(2) ||
      residues.sizes() != log_poles.sizes() || log_poles.size(1) > kernels::kMaxModes) {
    fail<ShapeError>(
        "modal_scan: need p [B,L,D], log_poles and residues [D,N] with N <= ", kernels::kMaxModes, ", got ",
        p.sizes(), ", ", log_poles.sizes(), ", ", residues.sizes());
  }
  if (state.defined() && (state.dim() != 3 || state.size(0) != p.size(0) || state.size(1) != p.size(2) ||
                          state.size(2) != log_poles.size(1))) {
    fail<ShapeError>("modal_scan: state must be [B,D,N], got ", state.sizes(), " for p ", p.sizes());
  }
}

}  // namespace

std::pair<Tensor, Tensor> modal_scan(const Tensor& p_BLD, const Tensor& log_poles_DN,
                                     const Tensor& residues_DN, const Tensor& state_BDN) {
  check(p_BLD, log_poles_DN, residues_DN, state_BDN);
  const DeviceKernels* kernels = device_kernels(p_BLD);
  if (!p_BLD.is_cpu() && (kernels == nullptr || p_BLD.scalar_type() != at::kFloat))
    return modal_scan_reference(p_BLD, log_poles_DN, residues_DN, state_BDN);
  const Tensor initial =
      state_BDN.defined() ? state_BDN.transpose(1, 2).contiguous()
                          : at::zeros({p_BLD.size(0), log_poles_DN.size(1), p_BLD.size(2)}, p_BLD.options());
  if (kernels != nullptr) return scan_on_device(*kernels, p_BLD, log_poles_DN, residues_DN, initial);
  const auto out =
      Scan::apply(p_BLD.contiguous(), log_poles_DN.t().contiguous(), residues_DN.t().contiguous(), initial);
  return {out[0], out[1].transpose(1, 2)};
}

std::pair<Tensor, Tensor> modal_scan_reference(const Tensor& p_BLD, const Tensor& log_poles_DN,
                                               const Tensor& residues_DN, const Tensor& state_BDN) {
  check(p_BLD, log_poles_DN, residues_DN, state_BDN);
  // Block by block of C bases: a C x C triangular filter inside a block, the modal state between blocks.
  const int64_t batch = p_BLD.size(0), length = p_BLD.size(1), channels = p_BLD.size(2);
  const int64_t block = std::min<int64_t>(64, length);
  const auto steps = at::arange(block, log_poles_DN.options());
  const Tensor decay_DNC = (log_poles_DN.unsqueeze(-1) * steps).exp();    // a^j
  const Tensor taps_DC = (residues_DN.unsqueeze(-1) * decay_DNC).sum(1);  // h[j]
  const auto lag = at::arange(block, at::TensorOptions().dtype(at::kLong).device(p_BLD.device()));
  const Tensor lag_CC = lag.unsqueeze(1) - lag.unsqueeze(0);
  const Tensor filter_DCC =
      taps_DC.index({at::indexing::Slice(), lag_CC.clamp_min(0)}) * lag_CC.ge(0).to(p_BLD.dtype());
  const Tensor from_state_DNC = residues_DN.unsqueeze(-1) * (log_poles_DN.unsqueeze(-1) * (steps + 1)).exp();
  Tensor state =
      state_BDN.defined() ? state_BDN : at::zeros({batch, channels, log_poles_DN.size(1)}, p_BLD.options());
  std::vector<Tensor> outputs;
  for (int64_t begin = 0; begin < length; begin += block) {
    const int64_t size = std::min(block, length - begin);
    const Tensor p = p_BLD.narrow(1, begin, size);
    Tensor y = at::einsum("dij,bjd->bid", {filter_DCC.narrow(1, 0, size).narrow(2, 0, size), p});
    y = y + at::einsum("bdn,dni->bid", {state, from_state_DNC.narrow(2, 0, size)});
    outputs.push_back(y);
    const Tensor decay_back = decay_DNC.narrow(2, 0, size).flip(2);
    state = state * (log_poles_DN * static_cast<double>(size)).exp() +
            at::einsum("bjd,dnj->bdn", {p, decay_back});
  }
  return {at::cat(outputs, 1), state};
}

}  // namespace focus::ops
