// Layers that see one position at a time, and the Hyena mixer, with checkpoint names as member names: Evo-2's, or Hugging Face's for what
// only its models have. Legend: B batch, L length, D model width, K filter taps, N IIR modes. Formulas follow Evo-2's public reference;
// where its epsilon, filter direction or channel order is easy to get wrong a comment says which one holds.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <optional>
#include <string>
#include <utility>

namespace focus::nn {

/// While one lives on this thread, layers are made without memory for their parameters: each is a single number broadcast to its shape,
/// until set_data() gives it a tensor (a view of a mapped checkpoint, say). A 7B model is then built in no time and no memory.
class DeferAllocation {
 public:
  DeferAllocation();
  ~DeferAllocation();
  DeferAllocation(const DeferAllocation&) = delete;
  DeferAllocation& operator=(const DeferAllocation&) = delete;

 private:
  bool before_;
};

/// An fp32 parameter filled with `value`.
at::Tensor new_parameter(at::IntArrayRef sizes, double value = 0.0);

/// What a checkpoint trained in FP8 multiplies a layer's input and weight by before they are rounded.
struct Fp8Scales {
  double input = 1.0, weight = 1.0;
};

/// y = x W^T + b. `weight` [out, in]; `bias` [out] or undefined.
class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in, int64_t out, bool with_bias);
  at::Tensor forward(const at::Tensor& x) const;
  /// From now on input and weight are rounded to FP8 (e4m3) as FP8 hardware would. The weight is rounded here, once: call it when the
  /// weight is in place, and do not train it afterwards.
  void emulate_fp8(const Fp8Scales& scales);
  const std::optional<Fp8Scales>& fp8() const { return fp8_; }
  /// Takes over what emulate_fp8() made of a layer with the same weight.
  void share_fp8(const Linear& other);
  /// From now on y = x W^T + b + scale * x down^T up^T (LoRA), in x's type. `down` is drawn, `up` starts at zero; both are fp32 parameters.
  /// ConfigError when the rank is larger than the weight.
  void add_low_rank(int64_t rank, double scale, at::Generator& generator);
  /// W, or what W and the low-rank change are together. Without FP8.
  at::Tensor effective_weight() const;
  at::Tensor weight, bias;
  at::Tensor lora_down, lora_up;  // [rank, in], [out, rank]; undefined without add_low_rank

 private:
  double lora_scale_ = 1.0;
  std::optional<Fp8Scales> fp8_;
  at::Tensor weight_e4m3_;
};

/// `weight` [vocabulary, width].
class Embedding : public torch::nn::Module {
 public:
  Embedding(int64_t vocabulary, int64_t width);
  at::Tensor weight;
};

/// Where the norm's epsilon stands. outside (Evo-2): x / (rms(x) + eps) * scale, rounded once. inside (Llama): x / sqrt(mean(x^2) + eps)
/// in fp32, rounded to x's type, then times scale in that type. The checkpoint names follow: "scale" or "weight".
enum class Epsilon { outside, inside };

class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(int64_t width, double eps, Epsilon place = Epsilon::outside);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor scale;

 private:
  double eps_;
  Epsilon place_;
};

enum class Activation { identity, gelu };

/// l3(act(l1(x)) * l2(x)); act is exact (erf) GELU or the identity.
class GatedMlp : public torch::nn::Module {
 public:
  GatedMlp(int64_t width, int64_t inner, Activation activation);
  at::Tensor forward(const at::Tensor& x) const;
  std::shared_ptr<Linear> l1, l2, l3;

 private:
  Activation activation_;
};

/// down_proj(silu(gate_proj(x)) * up_proj(x)).
class SwiGluMlp : public torch::nn::Module {
 public:
  SwiGluMlp(int64_t width, int64_t inner, bool with_bias);
  at::Tensor forward(const at::Tensor& x) const;
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

/// What a Hyena layer carries from one chunk to the next: constant size.
struct HyenaState {
  at::Tensor fir;    // [B, taps-1, 3D] last outputs of the input projection, oldest first, interleaved channels
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

/// Gated convolution: z' = fir(z); x2, x1, v = z'[0::3], z'[1::3], z'[2::3]; p = x1 v; y = x2 (conv(p) + D p).
/// hcs convolves by cross-correlation, hcm by true convolution, hcl by a sum of decaying exponentials.
class HyenaMixer {
 public:
  HyenaMixer(const HyenaOptions& options, std::shared_ptr<HyenaFilter> filter) : options_(options), filter_(std::move(filter)) {}
  /// `z_BLC` [B, L, 3D], the input projection. `state` may be null (a whole sequence from its first base, nothing carried); otherwise
  /// undefined members mean the start of a sequence, and it is replaced by the state after the chunk. Returns [B, L, D].
  at::Tensor forward(const at::Tensor& z_BLC, HyenaState* state) const;
  const HyenaOptions& options() const { return options_; }

 private:
  HyenaOptions options_;
  std::shared_ptr<HyenaFilter> filter_;
};

}  // namespace focus::nn
