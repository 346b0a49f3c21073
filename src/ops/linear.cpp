#include "focus/ops/linear.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>

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
constexpr int64_t kBlockRows = 64;         // so many widened rows of x stay in the second-level cache
constexpr int64_t kWorkBytes = 256 << 10;  // of weights for one thread at the least: waking it has its price

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

using Matrix = DeviceKernels::Matrix;

Tensor as_float(const Tensor& bias) { return bias.defined() ? bias.to(at::kFloat).contiguous() : bias; }

/// Sums as X, and what is done with them: times those of `up`, plus the residual, each rounded to X as if it
/// were an operation of its own. Null: none.
template <class X>
void finish(const float* sums, const float* up, const X* residual, int64_t begin, int64_t end, X* out) {
  for (int64_t i = begin; i < end; ++i) {
    X value = static_cast<X>(sums[i]);
    if (up != nullptr) value = static_cast<X>(static_cast<float>(value) * static_cast<X>(up[i]));
    if (residual != nullptr)
      value = static_cast<X>(static_cast<float>(residual[i]) + static_cast<float>(value));
    out[i] = value;
  }
}

/// x W^T + b, or (x W^T + b) (x U^T + c) where `up` is defined, plus the residual if there is one, in blocks
/// of rows. W and X: types of weights and of x, which is dense, as the residual is.
template <class W, class X>
Tensor streamed(const Tensor& x, const Matrix& matrix, const Matrix& up, const Tensor& residual) {
  using Raw = std::conditional_t<std::is_same_v<X, float>, float, Bf16>;
  const int64_t inputs = x.size(-1), rows = x.numel() / inputs, outputs = matrix.weight.size(0),
                block = std::min(rows, kBlockRows), padded = kernels::linear_padded(inputs);
  auto sizes = x.sizes().vec();
  sizes.back() = outputs;
  const Tensor out = at::empty(sizes, x.options());
  const bool gated = up.weight.defined();
  const Tensor biases[] = {as_float(matrix.bias), as_float(up.bias)};
  const auto scratch = std::make_unique_for_overwrite<float[]>(
      static_cast<std::size_t>(block * (padded + (gated ? 2 : 1) * outputs)));
  float *packed = scratch.get(), *sums = packed + block * padded,
        *up_sums = gated ? sums + block * outputs : nullptr;
  kernels::Linear<W> product[2];
  for (int i = 0; i < (gated ? 2 : 1); ++i) {
    product[i] = {
        .weight = static_cast<const W*>((i == 0 ? matrix : up).weight.const_data_ptr()),
        .x = packed,
        .bias = biases[i].defined() ? biases[i].const_data_ptr<float>() : nullptr,
        .y = i == 0 ? sums : up_sums,
        .rows = 0,
        .inputs = inputs,
        .outputs = outputs,
    };
  }
  constexpr int64_t kGroup = kernels::kLinearGroup;
  const int64_t groups = (outputs + kGroup - 1) / kGroup,
                group_bytes = (gated ? 2 : 1) * kGroup * inputs * static_cast<int64_t>(sizeof(W));
  const X* added = residual.defined() ? residual.const_data_ptr<X>() : nullptr;
  for (int64_t first = 0; first < rows; first += block) {
    const int64_t count = std::min(block, rows - first);
    for (int64_t row = 0; row < count; ++row) {
      kernels::linear_pack<W, Raw>(static_cast<const Raw*>(x.const_data_ptr()) + (first + row) * inputs,
                                   inputs, packed + row * padded);
    }
    product[0].rows = product[1].rows = count;
    at::parallel_for(
        0, groups, std::max<int64_t>(1, kWorkBytes / group_bytes), [&](int64_t begin, int64_t end) {
          const int64_t from = begin * kGroup, to = std::min(outputs, end * kGroup);
          kernels::linear<W>(product[0], from, to);
          if (gated) kernels::linear<W>(product[1], from, to);
          for (int64_t row = 0; row < count; ++row) {
            const int64_t at = (first + row) * outputs;
            finish<X>(sums + row * outputs, gated ? up_sums + row * outputs : nullptr,
                      added != nullptr ? added + at : nullptr, from, to, out.mutable_data_ptr<X>() + at);
          }
        });
  }
  return out;
}
Tensor streamed(const Tensor& x, const Matrix& matrix, const Matrix& up, const Tensor& residual) {
  const Tensor dense = x.contiguous();
  if (matrix.weight.scalar_type() == at::kFloat) return streamed<float, float>(dense, matrix, up, residual);
  return x.scalar_type() == at::kFloat ? streamed<Bf16, float>(dense, matrix, up, residual)
                                       : streamed<Bf16, at::BFloat16>(dense, matrix, up, residual);
}

/// Whether focus's kernel takes the product.
bool streams(const Tensor& x, const Matrix& matrix) {
  const Tensor& weight = matrix.weight;
  const bool bf16 = weight.scalar_type() == at::kBFloat16;
  if (!x.is_cpu() || !weight.is_contiguous() || x.numel() == 0 || weight.numel() == 0 ||
      (!bf16 && weight.scalar_type() != at::kFloat) || tracked({x, weight, matrix.bias}))
    return false;
  const int64_t rows = x.numel() / x.size(-1);
  const bool mixed = x.scalar_type() != weight.scalar_type(),
             few = rows <= (bf16 ? kFewRowsBf16 : kFewRowsFloat);
  return few || mixed || (bf16 && !kernels::cpu_multiplies_bf16());
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearOfRows : torch::autograd::Function<LinearOfRows> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& rows,
                        const std::optional<Tensor>& bias) {
    ctx->save_for_backward({rows.requires_grad() ? x : Tensor(), rows});
    ctx->saved_data["has_bias"] = bias.has_value();
    return linear_reference(x, rows.flatten(0, 1), bias ? bias->flatten() : Tensor());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &grad = grads[0], &x = saved[0], &rows = saved[1];
    const Tensor by_row = grad.reshape({-1, grad.size(-1)});
    variable_list out(3);
    if (ctx->needs_input_grad(0)) out[0] = at::matmul(grad, rows.flatten(0, 1).to(grad.scalar_type()));
    if (ctx->needs_input_grad(1))
      out[1] = at::matmul(by_row.t(), x.reshape({-1, x.size(-1)})).view(rows.sizes()).to(rows.scalar_type());
    if (ctx->saved_data["has_bias"].toBool() && ctx->needs_input_grad(2))
      out[2] = by_row.sum(0).view(rows.sizes().slice(0, 2));
    return out;
  }
};

Tensor product(const Tensor& x, const Matrix& matrix) {
  return streams(x, matrix) ? streamed(x, matrix, {}, {}) : linear_reference(x, matrix.weight, matrix.bias);
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual) {
  check(x, weight, bias);
  if (const DeviceKernels* kernels = float_kernels({x, weight, bias, residual});
      kernels != nullptr && !tracked({x, weight, bias, residual})) {
    if (const Tensor y = kernels->few_rows(x, {weight, bias}, {}, Gate::identity, residual); y.defined())
      return y;
  }
  if (!residual.defined()) return product(x, {weight, bias});
  const bool is_dense = residual.is_cpu() && residual.scalar_type() == x.scalar_type() &&
                        residual.is_contiguous() && residual.dim() == x.dim() &&
                        residual.size(-1) == weight.size(0) &&
                        residual.sizes().slice(0, residual.dim() - 1) == x.sizes().slice(0, x.dim() - 1);
  if (is_dense && streams(x, {weight, bias}) && !tracked({residual}))
    return streamed(x, {weight, bias}, {}, residual);
  return residual + product(x, {weight, bias});
}

Tensor linear_of_rows(const Tensor& x, const Tensor& rows, const Tensor& bias) {
  if (rows.dim() != 3 || (bias.defined() && bias.sizes() != rows.sizes().slice(0, 2)))
    fail<ShapeError>("linear: need rows [pieces, n, in] and bias [pieces, n] or none, got ", rows.sizes(),
                     ", ", bias.defined() ? bias.sizes() : at::IntArrayRef{});
  check(x, rows[0], bias.defined() ? bias[0] : bias);
  return LinearOfRows::apply(x, rows, bias.defined() ? std::optional(bias) : std::nullopt);
}

Tensor gated_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& up,
                    const Tensor& up_bias, Gate act) {
  check(x, weight, bias);
  check(x, up, up_bias);
  if (const DeviceKernels* kernels = float_kernels({x, weight, bias, up, up_bias});
      kernels != nullptr && weight.sizes() == up.sizes() && !tracked({x, weight, bias, up, up_bias})) {
    if (const Tensor y = kernels->few_rows(x, {weight, bias}, {up, up_bias}, act, {}); y.defined()) return y;
  }
  if (act == Gate::identity && weight.sizes() == up.sizes() && weight.dtype() == up.dtype() &&
      streams(x, {weight, bias}) && streams(x, {up, up_bias}))
    return streamed(x, {weight, bias}, {up, up_bias}, {});
  const Tensor a = product(x, {weight, bias});
  return gated(a, product(x, {up, up_bias}), act);
}

Tensor linear_reference(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check(x, weight, bias);
  return at::linear(x, weight.to(x.scalar_type()), bias.defined() ? bias.to(x.scalar_type()) : bias);
}

}  // namespace focus::ops
