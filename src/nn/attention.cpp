#include "focus/ops/attention.h"
#include "focus/core/error.h"
#include "focus/nn/layers.h"

namespace focus::nn {

using at::Tensor;

RotaryEmbedding::RotaryEmbedding(int64_t head_dim, double base) {
  const Tensor exponent = at::arange(0, head_dim, 2, at::kDouble) / static_cast<double>(head_dim);
  inv_freq = register_buffer("inv_freq", at::pow(at::scalar_tensor(base, at::kDouble), exponent).reciprocal().to(at::kFloat));
}

Attention::Attention(const AttentionOptions& options) : options_(options) {
  if (options.heads < 1 || options.width % options.heads != 0 || head_dim() % 2 != 0) {
    fail<ConfigError>("attention: width ", options.width, " must split into ", options.heads, " heads of an even dimension");
  }
  Wqkv = register_module("Wqkv", std::make_shared<Linear>(options.width, 3 * options.width, options.qkv_bias));
  out_proj = register_module("out_proj", std::make_shared<Linear>(options.width, options.width, options.out_bias));
  rotary_emb = register_module("rotary_emb", std::make_shared<RotaryEmbedding>(head_dim(), options.rotary_base));
}

Projection Attention::split(const Tensor& qkv_BLC) const {
  const int64_t heads = options_.heads, dim = head_dim();
  const Tensor parts = options_.column_split ? qkv_BLC.unflatten(-1, {heads, 3, dim}).permute({3, 0, 2, 1, 4})
                                             : qkv_BLC.unflatten(-1, {3, heads, dim}).permute({2, 0, 3, 1, 4});
  return {parts.select(0, 0), parts.select(0, 1), parts.select(0, 2)};
}

Tensor Attention::weight_of(int64_t part) const {
  const int64_t heads = options_.heads, dim = head_dim(), width = options_.width;
  const Tensor rows = options_.column_split ? Wqkv->weight.view({heads, 3, dim, width}).select(1, part)
                                            : Wqkv->weight.view({3, heads, dim, width}).select(0, part);
  return rows.reshape({width, width});
}

Tensor Attention::rotate(const Tensor& x_BHLE, const Tensor& positions) const {
  return ops::rotate(x_BHLE, positions, rotary_emb->inv_freq, options_.rotary_scaling);
}

Projection Attention::project(const Tensor& u_BLD, const Tensor& positions) const {
  Projection out = split(Wqkv->forward(u_BLD));
  out.q = rotate(out.q, positions);
  out.k = rotate(out.k, positions);
  return out;
}

Tensor Attention::output(const Tensor& context_BHLE) const { return out_proj->forward(context_BHLE.transpose(1, 2).flatten(2)); }

}  // namespace focus::nn
