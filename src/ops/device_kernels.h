// What focus's own kernels of a device other than the CPU do, on tensors. Ops ask for them by a tensor's
// device and else run in plain ATen.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>

#include "focus/ops/gate.h"
#include "focus/ops/recorded_work.h"
#include "focus/ops/rms_norm.h"
#include "focus/ops/sample.h"

#include "focus/ops/partial_attention.h"

namespace focus::ops {

/// What attention makes, and what its gradients need: log2 of the sum of exp(score + beta), [B,H,Q] fp32.
struct AttentionResult {
  at::Tensor out, log_sum;
};
/// What attention reads, or the gradients of it: contiguous, undefined where none is asked for.
struct AttentionInputs {
  at::Tensor q;
  MemoryPart memory;
  at::Tensor k, v;
};
/// A filter for every C / G channels in turn.
struct FilterTaps {
  at::Tensor taps_GK;
  bool newest_first = false;
};

class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;
  // Filters and the Hyena mixer, without gradients: fp32 or bf16, taps and skip in the type of x, sums in
  // fp32. Tensors that are written may have any distance between batches.
  /// y[b,t,c] = sum_j tap[c,j] x[b,t+j,c], and skip[c] times the newest x of the sum, or with `skip_oldest`
  /// its oldest. `skip` may be undefined.
  virtual at::Tensor fir(const at::Tensor& x_BTC, const FilterTaps& filter, const at::Tensor& skip_C,
                         bool skip_oldest) const = 0;
  /// sum over b, t of dy[b,t,c] x[b,t+j,c]: [K, C] fp32, K = T - L + 1.
  virtual at::Tensor fir_taps_gradient(const at::Tensor& x_BTC, const at::Tensor& dy_BLC) const = 0;

  struct Modes {
    at::Tensor log_poles_DN, residues_DN;  // fp32, N <= max_modes()
    at::Tensor skip_D;                     // may be undefined
  };
  virtual int64_t max_modes() const = 0;
  struct ScanOutput {
    at::Tensor y_BLD, final_BND, states;  // states: for scan_gradient
  };
  virtual ScanOutput scan(const at::Tensor& p_BLD, const Modes& modes,
                          const at::Tensor& initial_BND) const = 0;
  struct ScanGradient {
    at::Tensor dp_BLD, dinitial_BND, dpoles_DN, dresidues_DN;
  };
  /// `dfinal` may be undefined. Of poles, not of their logarithms, and only where `filters`.
  virtual ScanGradient scan_gradient(const at::Tensor& p_BLD, const at::Tensor& dy_BLD, const Modes& modes,
                                     const at::Tensor& states, const at::Tensor& dfinal_BND,
                                     bool filters) const = 0;

  struct HyenaInput {
    at::Tensor z_BLC, before, taps_C3;  // before: [B, 2, C], may be undefined
  };
  struct HyenaOutput {
    at::Tensor y_BLD, last, inner;  // last: [B, 2, C]; inner: [B, K-1, D], or the modes' states [B, N, D]
  };
  virtual int64_t max_inner_taps() const = 0;
  virtual HyenaOutput hyena_fir(const HyenaInput& in, const FilterTaps& filter, const at::Tensor& skip_D,
                                const at::Tensor& inner) const = 0;
  virtual HyenaOutput hyena_scan(const HyenaInput& in, const Modes& modes,
                                 const at::Tensor& initial_BND) const = 0;
  /// Writes p and dy x2.
  virtual void hyena_split(const HyenaInput& in, const at::Tensor& dy_BLD, const at::Tensor& p_BLD,
                           const at::Tensor& dinner_BLD) const = 0;
  /// Writes the gradient of the 3-tap filter's outputs, given the inner filter's and the gradient of p.
  virtual void hyena_gradient(const HyenaInput& in, const at::Tensor& dy_BLD, const at::Tensor& filtered_BLD,
                              const at::Tensor& dp_BLD, const at::Tensor& dmixed_BLC) const = 0;

  /// Whether memory_attention of queries like these has a kernel.
  virtual bool serves_attention(const at::Tensor& q_BHQE) const = 0;
  /// Parts of a memory that one call of attention reads beside the keys, at the most.
  static constexpr int64_t kMemoryParts = 2;
  /// memory_attention (focus/ops/attention.h); no part is empty, the head dimension of all is contiguous,
  /// beta fp32. The result is [B,H,Q,E] with the rows of a position beside each other.
  virtual AttentionResult attention(const at::Tensor& q_BHQE, const Memory& memory, const at::Tensor& k_BGSE,
                                    const at::Tensor& v_BGSE, const at::Tensor& num_keys,
                                    bool with_log_sum) const = 0;
  /// partial_attention (focus/ops/partial_attention.h), under the same conditions.
  virtual PartialAttention partial_attention(const at::Tensor& q_BHQE, const Memory& memory,
                                             const at::Tensor& k_BGSE, const at::Tensor& v_BGSE) const = 0;
  /// Overwrites all that is defined of `to`.
  virtual void attention_gradients(const at::Tensor& grad_BHQE, const AttentionResult& result,
                                   const at::Tensor& q_BHQE, const MemoryPart& memory,
                                   const at::Tensor& k_BGSE, const at::Tensor& v_BGSE,
                                   const AttentionInputs& to) const = 0;

  // What follows is for tensors that float_kernels takes.

  /// rms_norm of x or, where delta is defined, of x + delta, which is `sum` then. root: fp32 [rows], for the
  /// gradient; undefined unless asked for.
  struct Norm {
    at::Tensor sum, y, root;
  };
  virtual Norm rms_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& scale, double eps,
                        Epsilon place, bool keep_root) const = 0;
  /// dsum + d/dx; dsum undefined: none. x is what was normed.
  virtual at::Tensor rms_norm_gradient(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& root,
                                       const at::Tensor& dy, const at::Tensor& dsum, double eps,
                                       Epsilon place) const = 0;
  virtual at::Tensor rms_norm_scale_gradient(const at::Tensor& x, const at::Tensor& root,
                                             const at::Tensor& dy) const = 0;

  /// Rotates [B, H, L, E] from `in` to `out`, which may be the same; last dimensions contiguous.
  struct Turn {
    at::Tensor in, out;
  };
  /// rotate (focus/ops/attention.h) of queries, and of keys where these are defined. positions [L] int64 or
  /// fp32, inv_freq fp32. backwards: by the opposite angle.
  virtual void rotate(const Turn& q, const Turn& k, const at::Tensor& positions, const at::Tensor& inv_freq,
                      double scaling, bool backwards) const = 0;

  /// gated (focus/ops/gate.h).
  virtual at::Tensor gate(const at::Tensor& a, const at::Tensor& b, Gate act) const = 0;
  /// Gradients of a and b.
  virtual std::pair<at::Tensor, at::Tensor> gate_gradient(const at::Tensor& a, const at::Tensor& b,
                                                          const at::Tensor& dy, Gate act) const = 0;

  /// A weight [out, in] and its bias [out] or none.
  struct Matrix {
    at::Tensor weight, bias;
  };
  /// x W^T + b + residual or, where `up` is defined, act(x W^T + b) (x U^T + c) + residual, without
  /// gradients. Undefined where x has too many rows for it, or the tensors are fp32: there cuBLAS is faster.
  virtual at::Tensor few_rows(const at::Tensor& x, const Matrix& matrix, const Matrix& up, Gate act,
                              const at::Tensor& residual) const = 0;

  /// to_e4m3 (focus/ops/fp8_linear.h).
  virtual at::Tensor to_e4m3(const at::Tensor& x, double scale) const = 0;
  /// Whether at::_scaled_mm multiplies e4m3 on this device.
  virtual bool multiplies_e4m3(const at::Device& device) const = 0;

  /// choose_tokens (focus/ops/sample.h), logits [rows, tokens], uniform fp32 [rows]. Undefined where there
  /// are too many tokens for it.
  virtual at::Tensor choose_tokens(const at::Tensor& logits, const at::Tensor& uniform,
                                   const TokenChoice& choice) const = 0;

  virtual std::unique_ptr<RecordedWork> recorded_work(const at::Device& device) const = 0;
  virtual int64_t free_bytes(const at::Device& device) const = 0;
  virtual int64_t peak_bytes(const at::Device& device) const = 0;
};

/// Those of the tensor's device, or null.
const DeviceKernels* device_kernels(const at::Tensor& tensor);
const DeviceKernels* device_kernels(at::DeviceType type);
/// Those of the device where all that are defined lie, if they have one type, fp32 or bf16; else null. The
/// first must be defined.
const DeviceKernels* float_kernels(std::initializer_list<at::Tensor> tensors);
/// From now on, for one type of device; null: none.
void set_device_kernels(at::DeviceType type, const DeviceKernels* kernels);

}  // namespace focus::ops
