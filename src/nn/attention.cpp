#include "focus/nn/attention.h"

#include <tuple>

#include "focus/core/error.h"
#include "focus/ops/attention.h"

namespace focus::nn {
namespace {

using at::Tensor;

AttentionOptions resolved(AttentionOptions o) {
  if (o.kv_heads == 0) o.kv_heads = o.heads;
  if (o.heads < 1 || (o.dim == 0 && o.width % o.heads != 0))
    fail<ConfigError>("attention: width ", o.width, " does not split into ", o.heads, " heads");
  if (o.dim == 0) o.dim = o.width / o.heads;
  if (o.dim < 2 || o.dim % 2 != 0)
    fail<ConfigError>("attention: heads need an even dimension for rotary positions, got ", o.dim);
  if (o.kv_heads < 1 || o.heads % o.kv_heads != 0)
    fail<ConfigError>("attention: ", o.heads, " query heads cannot share ", o.kv_heads,
                      " key and value heads evenly");
  if (o.layout == AttentionLayout::fused && (o.kv_heads != o.heads || o.dim * o.heads != o.width))
    fail<ConfigError>(
        "attention: a fused Wqkv has as many key as query heads, and heads that fill the width");
  return o;
}

Tensor in_heads(const Tensor& x_BLC, int64_t dim) { return x_BLC.unflatten(-1, {-1, dim}).transpose(1, 2); }

}  // namespace

Tensor rotary_frequencies(int64_t head_dim, double base) {
  const Tensor exponent = at::arange(0, head_dim, 2, at::kDouble) / static_cast<double>(head_dim);
  return at::pow(at::scalar_tensor(base, at::kDouble), exponent).reciprocal().to(at::kFloat);
}

RotaryEmbedding::RotaryEmbedding(const Tensor& frequencies) {
  inv_freq = register_buffer("inv_freq", frequencies);
}

Attention::Attention(const AttentionOptions& options) : options_(resolved(options)) {
  const auto& o = options_;
  const int64_t query = o.heads * o.dim, kv = o.kv_heads * o.dim;
  const auto linear = [&](const char* name, int64_t in, int64_t out, bool bias) {
    return register_module(name, std::make_shared<Linear>(in, out, bias));
  };
  if (o.layout == AttentionLayout::fused) {
    Wqkv = linear("Wqkv", o.width, 3 * o.width, o.qkv_bias);
    out_proj = linear("out_proj", o.width, o.width, o.out_bias);
  } else {
    q_proj = linear("q_proj", o.width, query, o.qkv_bias);
    k_proj = linear("k_proj", o.width, kv, o.qkv_bias);
    v_proj = linear("v_proj", o.width, kv, o.qkv_bias);
    o_proj = linear("o_proj", query, o.width, o.out_bias);
  }
  const Tensor frequencies =
      o.inv_freq.defined() ? o.inv_freq.clone() : rotary_frequencies(o.dim, o.rotary_base);
  if (frequencies.sizes() != at::IntArrayRef{o.dim / 2})
    fail<ConfigError>("attention: ", o.dim / 2, " rotary frequencies are needed, got ", frequencies.sizes());
  rotary_emb = register_module("rotary_emb", std::make_shared<RotaryEmbedding>(frequencies));
}

Projection Attention::split(const Tensor& qkv_BLC) const {
  const int64_t heads = options_.heads, dim = options_.dim;
  const Tensor parts = options_.column_split
                           ? qkv_BLC.unflatten(-1, {heads, 3, dim}).permute({3, 0, 2, 1, 4})
                           : qkv_BLC.unflatten(-1, {3, heads, dim}).permute({2, 0, 3, 1, 4});
  return {parts.select(0, 0), parts.select(0, 1), parts.select(0, 2)};
}

Tensor Attention::project_part(const Tensor& u_BLD, int64_t part) const {
  if (options_.layout == AttentionLayout::separate)
    return (part == 0 ? q_proj : part == 1 ? k_proj : v_proj)->forward(u_BLD);
  // The rows of Wqkv that make this part.
  return Wqkv->forward_rows(u_BLD, [&](const Tensor& t) {
    return options_.column_split ? t.unflatten(0, {options_.heads, 3, options_.dim}).select(1, part)
                                 : t.unflatten(0, {3, options_.heads, options_.dim}).select(0, part);
  });
}

Tensor Attention::rotate(const Tensor& x_BHLE, const Tensor& positions) const {
  return ops::rotate(x_BHLE, positions, rotary_emb->inv_freq, options_.rotary_scaling);
}

Projection Attention::project(const Tensor& u_BLD, const Tensor& positions) const {
  const int64_t dim = options_.dim;
  Projection out =
      options_.layout == AttentionLayout::fused
          ? split(Wqkv->forward(u_BLD))
          : Projection{in_heads(q_proj->forward(u_BLD), dim), in_heads(k_proj->forward(u_BLD), dim),
                       in_heads(v_proj->forward(u_BLD), dim)};
  std::tie(out.q, out.k) =
      ops::rotate_in_place(out.q, out.k, positions, rotary_emb->inv_freq, options_.rotary_scaling);
  return out;
}

Tensor Attention::output(const Tensor& context_BHLE) const {
  return (out_proj ? out_proj : o_proj)->forward(context_BHLE.transpose(1, 2).flatten(2));
}

}  // namespace focus::nn
