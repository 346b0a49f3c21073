// What focus's own kernels of a device other than the CPU do, on tensors. Ops ask for them by a tensor's
// device and else run in plain ATen.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <initializer_list>
#include <utility>

#include "focus/ops/gate.h"
#include "focus/ops/rms_norm.h"
#include "focus/ops/sample.h"

namespace focus::ops {

class DeviceKernels {
 public:
  virtual ~DeviceKernels() = default;
  /// causal_fir (focus/ops/fir.h), without gradients. Undefined where there is no kernel for these tensors.
  virtual at::Tensor fir(const at::Tensor& x_BTC, const at::Tensor& taps_KC) const = 0;

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
