#include "focus/ops/attention.h"

#include "focus/core/error.h"

namespace focus::ops {

using at::Tensor;

Tensor attention(const Tensor& q_BHQE, const Tensor& k_BHSE, const Tensor& v_BHSE, const Tensor& bias) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q_BHQE.size(-1)));
  if (!bias.defined()) return at::scaled_dot_product_attention(q_BHQE, k_BHSE, v_BHSE);
  // The fused kernels take the bias as a constant: where it carries gradient (a trained beta) the softmax is written out.
  // An fp32 bias is never rounded to the queries' type: beta is a logarithm of a mass and needs its digits.
  const bool explicit_softmax = bias.requires_grad() && at::GradMode::is_enabled();
  const bool fused_takes_fp32_bias = q_BHQE.is_cpu() || q_BHQE.scalar_type() == at::kFloat;
  if (!explicit_softmax && fused_takes_fp32_bias && q_BHQE.scalar_type() != at::kDouble) {
    return at::scaled_dot_product_attention(q_BHQE, k_BHSE, v_BHSE, bias);
  }
  const auto compute = q_BHQE.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor scores = at::matmul(q_BHQE.to(compute) * scale, k_BHSE.to(compute).transpose(-1, -2)) + bias;
  return at::matmul(at::softmax(scores, -1), v_BHSE.to(compute)).to(q_BHQE.scalar_type());
}

Tensor causal_bias(int64_t num_queries, int64_t num_keys, const at::Device& device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  return at::full({num_queries, num_keys}, -std::numeric_limits<float>::infinity(), options).triu_(num_keys - num_queries + 1);
}

Tensor causal_attention(const Tensor& q_BHQE, const Tensor& k_BHSE, const Tensor& v_BHSE) {
  const int64_t num_queries = q_BHQE.size(2), num_keys = k_BHSE.size(2);
  FOCUS_CHECK(num_queries <= num_keys, "more queries than keys");
  if (num_queries == num_keys) return at::scaled_dot_product_attention(q_BHQE, k_BHSE, v_BHSE, {}, 0.0, /*is_causal=*/true);
  if (num_queries == 1) return at::scaled_dot_product_attention(q_BHQE, k_BHSE, v_BHSE);
  // Queries in blocks, so that the mask stays small however long the past is.
  constexpr int64_t kBlock = 512;
  std::vector<Tensor> outputs;
  for (int64_t begin = 0; begin < num_queries; begin += kBlock) {
    const int64_t size = std::min(kBlock, num_queries - begin), keys = num_keys - num_queries + begin + size;
    outputs.push_back(attention(q_BHQE.narrow(2, begin, size), k_BHSE.narrow(2, 0, keys), v_BHSE.narrow(2, 0, keys),
                                causal_bias(size, keys, q_BHQE.device())));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 2);
}

Tensor rotate(const Tensor& x, const Tensor& positions, const Tensor& inv_freq, double scaling) {
  const auto compute = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor angle = (positions.to(compute) / scaling).unsqueeze(-1) * inv_freq.to(compute);  // [L, E/2]
  const Tensor cosine = angle.cos(), sine = angle.sin(), wide = x.to(compute);
  const auto halves = wide.chunk(2, -1);
  return at::cat({halves[0] * cosine - halves[1] * sine, halves[0] * sine + halves[1] * cosine}, -1).to(x.scalar_type());
}

}  // namespace focus::ops
