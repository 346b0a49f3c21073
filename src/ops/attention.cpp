#include "focus/ops/attention.h"

#include <ATen/Parallel.h>
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

/// [L, E/2], of the type that is computed in.
Tensor angles_of(const Tensor& positions, const Tensor& inv_freq, double scaling, at::ScalarType compute) {
  return (positions.to(compute) / scaling).unsqueeze(-1) * inv_freq.to(compute);
}

constexpr int64_t kWork = 1 << 15;  // numbers of one thread at the least

/// Rows of [B, H, L, E] on the CPU, turned by the angles whose cosines and sines [L, E/2] are given.
template <class T>
void turn_rows(const Tensor& in, const Tensor& out, const float* cosine, const float* sine) {
  const int64_t heads = in.size(1), length = in.size(2), half = in.size(3) / 2;
  const auto* from = static_cast<const T*>(in.const_data_ptr());
  auto* to = static_cast<T*>(out.mutable_data_ptr());
  at::parallel_for(0, in.size(0) * heads * length, std::max<int64_t>(1, kWork / (2 * half)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       const int64_t b = i / (heads * length), h = i / length % heads, row = i % length;
                       const auto at = [&](const Tensor& t) {
                         return b * t.stride(0) + h * t.stride(1) + row * t.stride(2);
                       };
                       kernels::rotate<T>(from + at(in), to + at(out), cosine + row * half, sine + row * half,
                                          half);
                     }
                   });
}

// By which queries, and keys if there are any, are turned; all as the kernels take it.
struct Angles {
  Tensor positions, inv_freq;
  double scaling;

  variable_list turn(const variable_list& in, bool in_place, bool backwards) const {
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
    if (!turns[0].in.defined()) return out;
    if (turns[0].in.is_cpu()) {
      turn_on_cpu(turns, backwards);
    } else {
      device_kernels(turns[0].in)->rotate(turns[0], turns[1], positions, inv_freq, scaling, backwards);
    }
    return out;
  }

 private:
  void turn_on_cpu(const DeviceKernels::Turn (&turns)[2], bool backwards) const {
    const Tensor angle = angles_of(positions, inv_freq, scaling, at::kFloat).contiguous(),
                 cosine = angle.cos(), sine = backwards ? angle.sin().neg_() : angle.sin();
    for (const auto& [in, out] : turns) {
      if (!in.defined()) continue;
      const auto rows = in.scalar_type() == at::kFloat ? turn_rows<float> : turn_rows<kernels::Bf16>;
      rows(in, out, cosine.const_data_ptr<float>(), sine.const_data_ptr<float>());
    }
  }
};

struct Rotate : torch::autograd::Function<Rotate> {
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const std::optional<Tensor>& k,
                               const Tensor& positions, const Tensor& inv_freq, double scaling) {
    ctx->save_for_backward({positions, inv_freq});
    ctx->saved_data["scaling"] = scaling;
    ctx->set_materialize_grads(false);
    return Angles{positions, inv_freq, scaling}.turn(k.has_value() ? variable_list{q, *k} : variable_list{q},
                                                     false, false);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out =
        Angles{saved[0], saved[1], ctx->saved_data["scaling"].toDouble()}.turn(grads, false, true);
    out.resize(5);
    return out;
  }
};

/// Whether a kernel, the CPU's or a device's, takes these.
bool turned_by_kernel(const Tensor& x, const Tensor& positions, const Tensor& inv_freq) {
  const bool fits = x.dim() == 4 && positions.dim() == 1 && positions.size(0) == x.size(2) &&
                    positions.device() == x.device() && inv_freq.device() == x.device() &&
                    inv_freq.scalar_type() == at::kFloat && inv_freq.numel() * 2 == x.size(3);
  return fits && (x.is_cpu() ? x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16
                             : float_kernels({x}) != nullptr);
}
// As the kernels take them: whole numbers as int64, others in fp32.
Tensor exact_positions(const Tensor& positions) {
  return positions.to(at::isIntegralType(positions.scalar_type(), false) ? at::kLong : at::kFloat)
      .contiguous();
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
  if (turned_by_kernel(x, positions, inv_freq)) {
    const Angles angles{exact_positions(positions), inv_freq.contiguous(), scaling};
    return (tracked({x})
                ? Rotate::apply(x, std::optional<Tensor>(), angles.positions, angles.inv_freq, scaling)
                : angles.turn({x}, false, false))[0];
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
  if (!turned_by_kernel(q_BHLE, positions, inv_freq) || !turned_by_kernel(k_BGLE, positions, inv_freq) ||
      k_BGLE.scalar_type() != q_BHLE.scalar_type() || k_BGLE.size(0) != q_BHLE.size(0))
    return {rotate(q_BHLE, positions, inv_freq, scaling), rotate(k_BGLE, positions, inv_freq, scaling)};
  const Angles angles{exact_positions(positions), inv_freq.contiguous(), scaling};
  // On the CPU what follows is faster on rows that lie together, so that only a decoded base stays in place.
  const bool in_place = !q_BHLE.is_cpu() || q_BHLE.size(2) == 1;
  const auto out = tracked({q_BHLE, k_BGLE}) ? Rotate::apply(q_BHLE, std::optional(k_BGLE), angles.positions,
                                                             angles.inv_freq, scaling)
                                             : angles.turn({q_BHLE, k_BGLE}, in_place, false);
  return {out[0], out[1]};
}

}  // namespace focus::ops
