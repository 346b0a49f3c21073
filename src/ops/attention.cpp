#include "focus/ops/attention.h"

#include "focus/core/error.h"
#include "focus/ops/shared_heads.h"

namespace focus::ops {

using at::Tensor;

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
  const auto compute = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor angle = (positions.to(compute) / scaling).unsqueeze(-1) * inv_freq.to(compute);  // [L, E/2]
  const Tensor cosine = angle.cos(), sine = angle.sin(), wide = x.to(compute);
  const auto halves = wide.chunk(2, -1);
  return at::cat({halves[0] * cosine - halves[1] * sine, halves[0] * sine + halves[1] * cosine}, -1)
      .to(x.scalar_type());
}

}  // namespace focus::ops
