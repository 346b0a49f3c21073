#include "focus/ops/linear.h"

#include <ATen/Parallel.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/kernels/isa.h"
#include "focus/kernels/linear.h"
#include "focus/ops/tracked.h"

namespace focus::ops {
namespace {

using at::Tensor;
using kernels::Bf16;

// Up to so many rows focus's kernel is faster than LibTorch's linear, as measured on AVX-512: few rows are
// bound by memory, many by arithmetic, where a matrix product with packed operands wins.
constexpr int64_t kFewRowsFloat = 64;
constexpr int64_t kFewRowsBf16 =
    4;  // on a processor with bf16 products; without them LibTorch never catches up
constexpr int64_t kBlockRows = 64;        // so many widened rows of x stay in the second-level cache
constexpr int64_t kWorkBytes = 64 << 10;  // of weights for one thread at the least

void check(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (weight.dim() != 2 || x.dim() < 1 || x.size(-1) != weight.size(1) ||
      (bias.defined() && (bias.dim() != 1 || bias.size(0) != weight.size(0)))) {
    fail<ShapeError>("linear: need x [.., in], weight [out, in] and bias [out] or none, got ", x.sizes(),
                     ", ", weight.sizes(), ", ", bias.defined() ? bias.sizes() : at::IntArrayRef{});
  }
  const bool widens = x.scalar_type() == at::kFloat && weight.scalar_type() == at::kBFloat16;
  if ((x.scalar_type() != weight.scalar_type() && !widens) ||
      (bias.defined() && bias.scalar_type() != weight.scalar_type())) {
    fail<ShapeError>("linear: weight and bias must have x's type, or be bfloat16 where x is float32, got x ",
                     x.dtype(), ", weight ", weight.dtype(),
                     bias.defined() ? concat(", bias ", bias.dtype()) : "");
  }
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

/// Writes y, fp32 [rows, outputs], for up to kBlockRows rows of x [rows, inputs]; bias fp32 or undefined.
template <class W>
void run_kernel(const Tensor& x, const Tensor& weight, const Tensor& bias, Tensor& packed, float* y) {
  const int64_t rows = x.size(0), inputs = x.size(1), outputs = weight.size(0), padded = packed.size(1);
  for (int64_t row = 0; row < rows; ++row) {
    float* to = packed.mutable_data_ptr<float>() + row * padded;
    x.scalar_type() == at::kFloat ? kernels::linear_pack<W, float>(data<float>(x) + row * inputs, inputs, to)
                                  : kernels::linear_pack<W, Bf16>(data<Bf16>(x) + row * inputs, inputs, to);
  }
  const kernels::Linear<W> args{.weight = data<W>(weight),
                                .x = packed.const_data_ptr<float>(),
                                .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                                .y = y,
                                .rows = rows,
                                .inputs = inputs,
                                .outputs = outputs};
  constexpr int64_t kGroup = kernels::kLinearGroup;
  const int64_t groups = (outputs + kGroup - 1) / kGroup,
                group_bytes = kGroup * inputs * static_cast<int64_t>(sizeof(W));
  at::parallel_for(0, groups, std::max<int64_t>(1, kWorkBytes / group_bytes),
                   [&](int64_t begin, int64_t end) {
                     kernels::linear<W>(args, begin * kGroup, std::min(outputs, end * kGroup));
                   });
}

Tensor streamed(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const int64_t rows = x.size(0), outputs = weight.size(0), block = std::min(rows, kBlockRows);
  const auto options = x.options().dtype(at::kFloat);
  Tensor packed = at::empty({block, kernels::linear_padded(x.size(1))}, options),
         y = at::empty({rows, outputs}, options);
  for (int64_t row = 0; row < rows; row += block) {
    const Tensor part = x.narrow(0, row, std::min(block, rows - row));
    float* to = y.mutable_data_ptr<float>() + row * outputs;
    weight.scalar_type() == at::kFloat ? run_kernel<float>(part, weight, bias, packed, to)
                                       : run_kernel<Bf16>(part, weight, bias, packed, to);
  }
  return y;
}

Tensor product(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const bool bf16 = weight.scalar_type() == at::kBFloat16;
  if (!x.is_cpu() || !weight.is_contiguous() || x.numel() == 0 || weight.numel() == 0 ||
      (!bf16 && weight.scalar_type() != at::kFloat) || tracked({x, weight, bias})) {
    return linear_reference(x, weight, bias);
  }
  const int64_t rows = x.numel() / x.size(-1);
  const bool mixed = x.scalar_type() != weight.scalar_type(),
             few = rows <= (bf16 ? kFewRowsBf16 : kFewRowsFloat);
  if (!few && !mixed && (!bf16 || kernels::cpu_multiplies_bf16())) return at::linear(x, weight, bias);
  const Tensor y = streamed(x.reshape({rows, x.size(-1)}).contiguous(), weight,
                            bias.defined() ? bias.to(at::kFloat).contiguous() : bias);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return y.to(x.scalar_type()).view(sizes);
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual) {
  check(x, weight, bias);
  if (const DeviceKernels* kernels = float_kernels({x, weight, bias, residual});
      kernels != nullptr && !tracked({x, weight, bias, residual})) {
    if (const Tensor y = kernels->few_rows(x, {weight, bias}, {}, Gate::identity, residual); y.defined())
      return y;
  }
  const Tensor y = product(x, weight, bias);
  return residual.defined() ? residual + y : y;
}

Tensor gated_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& up,
                    const Tensor& up_bias, Gate act) {
  check(x, weight, bias);
  check(x, up, up_bias);
  if (const DeviceKernels* kernels = float_kernels({x, weight, bias, up, up_bias});
      kernels != nullptr && weight.sizes() == up.sizes() && !tracked({x, weight, bias, up, up_bias})) {
    if (const Tensor y = kernels->few_rows(x, {weight, bias}, {up, up_bias}, act, {}); y.defined()) return y;
  }
  const Tensor a = product(x, weight, bias);
  return gated(a, product(x, up, up_bias), act);
}

Tensor linear_reference(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check(x, weight, bias);
  return at::linear(x, weight.to(x.scalar_type()), bias.defined() ? bias.to(x.scalar_type()) : bias);
}

}  // namespace focus::ops
