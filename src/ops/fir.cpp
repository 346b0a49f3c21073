#include "focus/ops/fir.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/kernels/channels.h"
#include "focus/kernels/fir.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class T>
void forward_kernel(const Tensor& x, const Tensor& taps, Tensor& y) {
  const int64_t batch = x.size(0), rows = x.size(1), channels = x.size(2), length = y.size(1),
                blocks = (channels + kernels::kChannelBlock - 1) / kernels::kChannelBlock;
  at::parallel_for(0, batch * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / blocks, c0 = task % blocks * kernels::kChannelBlock,
                    c1 = std::min(channels, c0 + kernels::kChannelBlock);
      kernels::fir_forward<T>(
          {x.const_data_ptr<T>() + b * rows * channels, taps.const_data_ptr<T>(),
           y.mutable_data_ptr<T>() + b * length * channels, length, taps.size(0), channels},
          c0, c1);
    }
  });
}

template <class T>
void taps_gradient_kernel(const Tensor& x, const Tensor& dy, Tensor& dtaps) {
  const int64_t batch = x.size(0), rows = x.size(1), channels = x.size(2), length = dy.size(1),
                blocks = (channels + kernels::kChannelBlock - 1) / kernels::kChannelBlock;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c0 = task * kernels::kChannelBlock, c1 = std::min(channels, c0 + kernels::kChannelBlock);
      for (int64_t b = 0; b < batch; ++b) {  // in order: the sum does not depend on the number of threads
        kernels::fir_taps_gradient<T>(
            {x.const_data_ptr<T>() + b * rows * channels, dy.const_data_ptr<T>() + b * length * channels,
             dtaps.mutable_data_ptr<T>(), length, dtaps.size(0), channels},
            c0, c1);
      }
    }
  });
}

Tensor run_forward(const Tensor& x, const Tensor& taps) {
  if (const DeviceKernels* kernels = device_kernels(x)) return kernels->fir(x, {taps.t()}, {}, false);
  Tensor y = at::empty({x.size(0), x.size(1) - taps.size(0) + 1, x.size(2)}, x.options());
  x.scalar_type() == at::kDouble ? forward_kernel<double>(x, taps, y) : forward_kernel<float>(x, taps, y);
  return y;
}

struct CausalFir : torch::autograd::Function<CausalFir> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& taps) {
    ctx->save_for_backward({x, taps});
    return run_forward(x, taps);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &taps = saved[1];
    const Tensor dy = grads[0].contiguous();
    const int64_t pad = taps.size(0) - 1;
    Tensor dx, dtaps;
    if (ctx->needs_input_grad(0)) {
      // dx[s] = sum_j taps[j] dy[s-j]: the same filter with its taps flipped, over dy padded on both sides.
      dx = run_forward(at::constant_pad_nd(dy, {0, 0, pad, pad}), taps.flip(0).contiguous());
    }
    const DeviceKernels* kernels = device_kernels(x);
    if (kernels != nullptr && ctx->needs_input_grad(1)) {
      dtaps = kernels->fir_taps_gradient(x, dy);
    } else if (ctx->needs_input_grad(1)) {
      dtaps = at::zeros_like(taps);
      x.scalar_type() == at::kDouble ? taps_gradient_kernel<double>(x, dy, dtaps)
                                     : taps_gradient_kernel<float>(x, dy, dtaps);
    }
    return {dx, dtaps};
  }
};

void check(const Tensor& x, const Tensor& taps) {
  if (x.dim() != 3 || taps.dim() != 2 || x.size(2) != taps.size(1) || x.size(1) < taps.size(0) ||
      taps.size(0) < 1) {
    fail<ShapeError>("causal_fir: x must be [B, L+K-1, C] and taps [K, C] with L >= 1, got ", x.sizes(),
                     " and ", taps.sizes());
  }
  if (x.scalar_type() != taps.scalar_type() ||
      (x.scalar_type() != at::kFloat && x.scalar_type() != at::kDouble)) {
    fail<ShapeError>("causal_fir: x and taps must both be float32 or both float64, got ", x.dtype(), " and ",
                     taps.dtype());
  }
}

}  // namespace

Tensor causal_fir(const Tensor& x_BTC, const Tensor& taps_KC) {
  check(x_BTC, taps_KC);
  const bool has_kernel =
      x_BTC.is_cpu() || (device_kernels(x_BTC) != nullptr && x_BTC.scalar_type() == at::kFloat);
  if (!has_kernel) return causal_fir_reference(x_BTC, taps_KC);
  return CausalFir::apply(x_BTC.contiguous(), taps_KC.contiguous());
}

Tensor causal_fir_reference(const Tensor& x_BTC, const Tensor& taps_KC) {
  check(x_BTC, taps_KC);
  return at::conv1d(x_BTC.transpose(1, 2), taps_KC.t().unsqueeze(1), {}, at::IntArrayRef{1},
                    at::IntArrayRef{0}, at::IntArrayRef{1}, x_BTC.size(2))
      .transpose(1, 2);
}

}  // namespace focus::ops
