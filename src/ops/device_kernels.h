// What focus's own kernels of a device other than the CPU do, on tensors. Ops ask for them by a tensor's
// device and else run in plain ATen.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace focus::ops {

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

  virtual int64_t free_bytes(const at::Device& device) const = 0;
  virtual int64_t peak_bytes(const at::Device& device) const = 0;
};

/// Those of the tensor's device, or null.
const DeviceKernels* device_kernels(const at::Tensor& tensor);
const DeviceKernels* device_kernels(at::DeviceType type);
/// From now on, for one type of device; null: none.
void set_device_kernels(at::DeviceType type, const DeviceKernels* kernels);

}  // namespace focus::ops
