// The Hyena mixer, with checkpoint names as member names. Legend: B batch, L length, D model width, K filter
// taps, N IIR modes. Formulas follow Evo-2's public reference; where its filter direction or channel order is
// easy to get wrong a comment says which one holds.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "focus/ops/hyena.h"

namespace focus::nn {

/// What a Hyena layer carries from one chunk to the next: constant size.
struct HyenaState {
  at::Tensor fir;  // [B, taps-1, 3D] last outputs of the input projection, oldest first, interleaved channels
  at::Tensor inner;  // [B, K-1, D] last values of x1*v (hcs, hcm), or [B, D, N] fp32 modal state (hcl)
};

enum class HyenaKind { hcs, hcm, hcl };

struct HyenaOptions {
  HyenaKind kind = HyenaKind::hcs;
  int64_t width = 0;
  int64_t input_taps = 3;
  int64_t taps = 7;    // hcs, hcm
  int64_t groups = 1;  // hcs, hcm: channel c uses filter c / (width / groups)
  int64_t modes = 16;  // hcl
};

/// The filter parameters of a Hyena mixer (checkpoint prefix `filter`).
class HyenaFilter : public torch::nn::Module {
 public:
  explicit HyenaFilter(const HyenaOptions& options);
  at::Tensor short_filter_weight;  // [3D, 1, input_taps]
  at::Tensor h;                    // [groups, 1, taps]: hcs, hcm
  at::Tensor D;                    // [D]: hcm, hcl
  at::Tensor log_poles;            // [D, N, 1] fp32: hcl
  at::Tensor residues;             // [D, N] fp32: hcl
};

/// Gated convolution: z' = fir(z); x2, x1, v = z'[0::3], z'[1::3], z'[2::3]; p = x1 v; y = x2 (conv(p) + D
/// p). hcs convolves by cross-correlation, hcm by true convolution, hcl by a sum of decaying exponentials.
class HyenaMixer {
 public:
  HyenaMixer(const HyenaOptions& options, std::shared_ptr<HyenaFilter> filter)
      : options_(options), filter_(std::move(filter)) {}
  /// `z_BLC` [B, L, 3D], the input projection. `state` may be null (a whole sequence from its first base,
  /// nothing carried); otherwise undefined members mean the start of a sequence, and it is replaced by the
  /// state after the chunk. Returns [B, L, D].
  at::Tensor forward(const at::Tensor& z_BLC, HyenaState* state) const;
  const HyenaOptions& options() const { return options_; }

 private:
  ops::HyenaFilters filters() const;

  HyenaOptions options_;
  std::shared_ptr<HyenaFilter> filter_;
};

}  // namespace focus::nn
