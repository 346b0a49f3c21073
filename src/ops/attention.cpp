#include "focus/ops/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/kernels/rotary.h"
#include "focus/ops/shared_heads.h"
#include "focus/ops/tracked.h"

namespace focus::ops {

using at::Tensor;
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// By which queries, and keys if there are any, are turned; all as the kernels take it.
struct Angles {
  Tensor positions, inv_freq;
  double scaling;

  variable_list turn(const DeviceKernels& kernels, const variable_list& in, bool in_place,
                     bool backwards) const {
    DeviceKernels::Turn turns[2];
    variable_list out;
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (!in[i].defined()) {
        out.emplace_back();
        continue;
      }
      turns[i].in = in[i].stride(-1) == 1 ? in[i] : in[i].contiguous();
      turns[i].out = in_place ? turns[i].in : at::empty(in[i].sizes(), in[i].options());
      out.push_back(turns[i].out);
    }
    if (!turns[0].in.defined()) std::swap(turns[0], turns[1]);
    if (turns[0].in.defined()) kernels.rotate(turns[0], turns[1], positions, inv_freq, scaling, backwards);
    return out;
  }
};

struct DeviceRotate : torch::autograd::Function<DeviceRotate> {
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const std::optional<Tensor>& k,
                               const Tensor& positions, const Tensor& inv_freq, double scaling) {
    ctx->save_for_backward({positions, inv_freq});
    ctx->saved_data["scaling"] = scaling;
    ctx->set_materialize_grads(false);
    return Angles{positions, inv_freq, scaling}.turn(
        *device_kernels(q), k.has_value() ? variable_list{q, *k} : variable_list{q}, false, false);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out = Angles{saved[0], saved[1], ctx->saved_data["scaling"].toDouble()}.turn(
        *device_kernels(saved[0]), grads, false, true);
    out.resize(5);
    return out;
  }
};

// Null where the kernels do not take these.
const DeviceKernels* rotary_kernels(const Tensor& x, const Tensor& positions, const Tensor& inv_freq) {
  const bool fits = x.dim() == 4 && positions.dim() == 1 && positions.size(0) == x.size(2) &&
                    positions.device() == x.device() && inv_freq.device() == x.device() &&
                    inv_freq.scalar_type() == at::kFloat && inv_freq.numel() * 2 == x.size(3);
  return fits ? float_kernels({x}) : nullptr;
}
// As the kernels take them: whole numbers as int64, others in fp32.
Tensor exact_positions(const Tensor& positions) {
  return positions.to(at::isIntegralType(positions.scalar_type(), false) ? at::kLong : at::kFloat)
      .contiguous();
}

/// [L, E/2], of the type that is computed in.
Tensor angles_of(const Tensor& positions, const Tensor& inv_freq, double scaling, at::ScalarType compute) {
  return (positions.to(compute) / scaling).unsqueeze(-1) * inv_freq.to(compute);
}

template <class T>
void rotate_rows(const Tensor& x, const float* cosine, const float* sine) {
  for (int64_t b = 0; b < x.size(0); ++b) {
    for (int64_t h = 0; h < x.size(1); ++h) {
      T* row = static_cast<T*>(x.mutable_data_ptr()) + b * x.stride(0) + h * x.stride(1);
      kernels::rotate<T>(row, cosine, sine, x.size(3) / 2);
    }
  }
}

}  // namespace

Tensor attention(const Tensor& q_BHQE, const Tensor& k_BGSE, const Tensor& v_BGSE, const Tensor& bias) {
  const int64_t heads = q_BHQE.size(1), key_heads = k_BGSE.size(1);
  if (key_heads < 1 || heads % key_heads != 0 || v_BGSE.size(1) != key_heads)
    fail<ShapeError>("attention: ", heads, " query heads cannot share ", key_heads, " key and ",
                     v_BGSE.size(1), " value heads evenly");
  const Tensor k = shared_heads(k_BGSE, heads), v = shared_heads(v_BGSE, heads);
  if (!bias.defined()) return at::scaled_dot_product_attention(q_BHQE, k, v);
  const bool shared = bias.dim() == 4 && bias.size(1) == key_heads && key_heads > 1;
  const Tensor all_bias = shared ? shared_heads(bias, heads) : bias;
  // The fused kernels take the bias as a constant: where it carries gradient (a trained beta) the softmax is
  // written out. An fp32 bias is never rounded to the queries' type: beta is a logarithm of a mass and needs
  // its digits.
  const bool explicit_softmax = bias.requires_grad() && at::GradMode::is_enabled();
  const bool fused_takes_bias = q_BHQE.is_cpu() || q_BHQE.scalar_type() == bias.scalar_type();
  if (!explicit_softmax && fused_takes_bias && q_BHQE.scalar_type() != at::kDouble) {
    return at::scaled_dot_product_attention(q_BHQE, k, v, all_bias);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(q_BHQE.size(-1)));
  const auto compute = q_BHQE.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor scores = at::matmul(q_BHQE.to(compute) * scale, k.to(compute).transpose(-1, -2)) + all_bias;
  return at::matmul(at::softmax(scores, -1), v.to(compute)).to(q_BHQE.scalar_type());
}

Tensor causal_bias(int64_t num_queries, int64_t num_keys, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  return at::full({num_queries, num_keys}, -std::numeric_limits<float>::infinity(), options)
      .triu_(num_keys - num_queries + 1);
}

Tensor causal_attention(const Tensor& q_BHQE, const Tensor& k_BGSE, const Tensor& v_BGSE) {
  return memory_attention(q_BHQE, {}, k_BGSE, v_BGSE);
}

Tensor rotate(const Tensor& x, const Tensor& positions, const Tensor& inv_freq, double scaling) {
  if (const DeviceKernels* kernels = rotary_kernels(x, positions, inv_freq); kernels != nullptr) {
    const Angles angles{exact_positions(positions), inv_freq.contiguous(), scaling};
    return (tracked({x})
                ? DeviceRotate::apply(x, std::optional<Tensor>(), angles.positions, angles.inv_freq, scaling)
                : angles.turn(*kernels, {x}, false, false))[0];
  }
  const auto compute = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor angle = angles_of(positions, inv_freq, scaling, compute);
  const Tensor cosine = angle.cos(), sine = angle.sin(), wide = x.to(compute);
  const auto halves = wide.chunk(2, -1);
  return at::cat({halves[0] * cosine - halves[1] * sine, halves[0] * sine + halves[1] * cosine}, -1)
      .to(x.scalar_type());
}

std::pair<Tensor, Tensor> rotate_in_place(const Tensor& q_BHLE, const Tensor& k_BGLE, const Tensor& positions,
                                          const Tensor& inv_freq, double scaling) {
  // A decoded base.
  const auto one_row = [&](const Tensor& x) {
    return x.is_cpu() && x.dim() == 4 && x.size(2) == 1 && x.stride(3) == 1 &&
           x.size(3) == 2 * inv_freq.numel() &&
           (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
  };
  if (one_row(q_BHLE) && one_row(k_BGLE) && positions.numel() == 1 && !tracked({q_BHLE, k_BGLE})) {
    const Tensor angle = angles_of(positions, inv_freq, scaling, at::kFloat).contiguous(),
                 cosine = angle.cos(), sine = angle.sin();
    for (const Tensor& x : {q_BHLE, k_BGLE}) {
      const auto rows = x.scalar_type() == at::kFloat ? rotate_rows<float> : rotate_rows<kernels::Bf16>;
      rows(x, cosine.const_data_ptr<float>(), sine.const_data_ptr<float>());
    }
    return {q_BHLE, k_BGLE};
  }
  const DeviceKernels* kernels = rotary_kernels(q_BHLE, positions, inv_freq);
  if (kernels == nullptr || rotary_kernels(k_BGLE, positions, inv_freq) == nullptr ||
      k_BGLE.scalar_type() != q_BHLE.scalar_type() || k_BGLE.size(0) != q_BHLE.size(0))
    return {rotate(q_BHLE, positions, inv_freq, scaling), rotate(k_BGLE, positions, inv_freq, scaling)};
  const Angles angles{exact_positions(positions), inv_freq.contiguous(), scaling};
  const auto out = tracked({q_BHLE, k_BGLE}) ? DeviceRotate::apply(q_BHLE, std::optional(k_BGLE),
                                                                   angles.positions, angles.inv_freq, scaling)
                                             : angles.turn(*kernels, {q_BHLE, k_BGLE}, true, false);
  return {out[0], out[1]};
}

}  // namespace focus::ops
