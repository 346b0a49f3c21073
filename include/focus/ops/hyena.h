// A Hyena mixer's operator in one pass over memory, on the CPU and where a card has kernels for it. Legend: B batch, L
// length, D channels, G filter groups, K taps, N modes.
#pragma once

#include <ATen/ATen.h>

namespace focus::ops {

/// The filters of a mixer. All but the modes have the type of z.
struct HyenaFilters {
  at::Tensor input_taps;  // [3D, 3], the newest base's last
  at::Tensor taps;        // [G, K], one filter for D / G channels in turn; undefined: modes
  bool newest_first = false;
  at::Tensor log_poles, residues;  // [D, N] fp32
  at::Tensor skip;                 // [D]: D p is added to the inner filter's output; may be undefined
};

struct HyenaOutput {
  at::Tensor y;      // [B, L, D]
  at::Tensor fir;    // [B, 2, 3D], the last rows of z: what the next chunk has before it
  at::Tensor inner;  // [B, K-1, D], the last values of p, or [B, D, N] fp32, the modes' states
};

/// Whether hyena() takes these: fp32 or bf16 on the CPU or a device with kernels, 3 input taps, at most 129
/// taps or, on a card, 16 and, on the CPU, 64 modes.
bool has_hyena(const at::Tensor& z_BLC, const HyenaFilters& filters);

/// z' = fir(z); x2, x1, v = z'[0::3], z'[1::3], z'[2::3]; p = x1 v; y = x2 (filter(p) + skip p), rounded to
/// z's type where it has a name here, with sums in fp32. `fir` and `inner` are what the chunk before left, or
/// undefined at the start of a sequence. Differentiable in all tensors; the backward pass computes p again.
/// Throws ShapeError.
HyenaOutput hyena(const at::Tensor& z_BLC, const HyenaFilters& filters, const at::Tensor& fir,
                  const at::Tensor& inner);

}  // namespace focus::ops
