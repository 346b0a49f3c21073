// RMS norms on a CUDA device: raw device pointers, the caller's stream, 64-bit sizes. T: float or Bf16; all
// between is fp32. Addresses and widths that are multiples of sixteen bytes are read sixteen at a time.
#pragma once

#include <cstdint>

#include "focus/kernels/linear.h"  // Bf16

namespace focus::kernels::cuda {

/// y = x / root * scale by rows of `width` values, all contiguous.
template <class T>
struct RmsNorm {
  const T* x;      // [rows, width]
  const T* delta;  // [rows, width] or null: first x = round(x + delta), which goes to sum
  T* sum;          // [rows, width], may be x; used with delta only
  const T* scale;  // [width]
  T* y;            // [rows, width]
  float* root;     // [rows] or null: what x is divided by, for the gradient
  int64_t rows, width;
  float eps;
  // false: root = sqrt(mean(x^2)) + eps. true: root = sqrt(mean(x^2) + eps), and x / root is rounded to T
  // before it is multiplied by the scale.
  bool eps_inside;
};

/// dx = dsum + d/dx of the norm.
template <class T>
struct RmsNormGradient {
  const T* x;         // [rows, width], what was normed
  const T* scale;     // [width]
  const float* root;  // [rows]
  const T* dy;        // [rows, width]
  const T* dsum;      // [rows, width] or null
  T* dx;              // [rows, width]; may be dsum
  int64_t rows, width;
  float eps;
  bool eps_inside;
};

/// Throw InternalError with CUDA's reason when a launch fails.
template <class T>
void rms_norm(const RmsNorm<T>& args, void* stream);
template <class T>
void rms_norm_gradient(const RmsNormGradient<T>& args, void* stream);

/// Sums that rms_norm_scale_gradient makes of so many rows.
inline constexpr int64_t kScaleRows = 128;
/// parts[p, c] = sum over rows [p kScaleRows, (p + 1) kScaleRows) of dy x / root; fp32
/// [ceil(rows / kScaleRows), width]. Their sum over p is the gradient of the scale.
template <class T>
void rms_norm_scale_gradient(const T* x, const T* dy, const float* root, float* parts, int64_t rows,
                             int64_t width, void* stream);

}  // namespace focus::kernels::cuda
