#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/kernels/attention.h"
#include "focus/ops/attention.h"
#include "focus/ops/recompute.h"
#include "focus/ops/shared_heads.h"
#include "memory_parts.h"

namespace focus::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t keys_of(const Tensor& k) { return k.defined() ? k.size(2) : 0; }
/// 0: there is none.
int64_t heads_of(const MemoryPart& part) {
  const Tensor& keys = part.in_codes() ? part.k_codes.codes : part.k;
  return keys.defined() ? keys.size(1) : 0;
}

void check_keys(const char* what, const Tensor& q, const Tensor& k, const Tensor& v) {
  if (!k.defined() && !v.defined()) return;
  const bool fits = k.defined() && v.defined() && k.dim() == 4 && k.sizes() == v.sizes() &&
                    k.size(0) == q.size(0) && k.size(1) > 0 && q.size(1) % k.size(1) == 0 &&
                    k.size(3) == q.size(3) && k.scalar_type() == q.scalar_type() &&
                    v.scalar_type() == q.scalar_type();
  if (!fits) {
    const auto shape = [](const Tensor& t) {
      return t.defined() ? concat(t.dtype(), " ", t.sizes()) : std::string("none");
    };
    fail<ShapeError>("memory_attention: ", what,
                     " must be [B,G,S,E] of the queries' type, with G dividing H; got k ", shape(k), ", v ",
                     shape(v), " for q ", shape(q));
  }
}

void check_codes(const Tensor& q, const QuantisedTensor& x, bool in_groups) {
  const auto has = [](const Tensor& t, at::ScalarType type, int64_t dim) {
    return t.defined() && t.scalar_type() == type && t.dim() == dim;
  };
  bool fits = (x.bits == 8 || x.bits == 4) && has(x.codes, at::kByte, 4) && has(x.low, at::kHalf, 4) &&
              has(x.step, at::kHalf, 4) && x.low.sizes() == x.step.sizes() && x.channels() == q.size(3) &&
              x.codes.size(0) == q.size(0) && x.low.size(0) == q.size(0) && x.codes.size(1) > 0 &&
              q.size(1) % x.codes.size(1) == 0 && x.low.size(1) == x.codes.size(1) && q.size(3) % 2 == 0;
  if (fits && x.row_of.defined())
    fits =
        in_groups && has(x.row_of, at::kInt, 1) && x.row_of.size(0) == x.size() && x.low.size(3) == q.size(3);
  else if (fits)
    fits = x.low.size(2) == x.size() && x.low.size(3) == 1;
  if (!fits)
    fail<ShapeError>(
        "memory_attention: codes must be uint8 [B,G,P,E * bits / 8] with fp16 scales [B,G,P,1], "
        "or of keys [B,G,groups,E] and int32 row_of [P]; got codes ",
        x.defined() ? concat(x.codes.dtype(), " ", x.codes.sizes()) : std::string("none"), ", ", x.bits,
        " bits, for q ", q.sizes());
}

void check_part(const Tensor& q, const MemoryPart& part) {
  if (!part.in_codes()) {
    check_keys("memory", q, part.k, part.v);
  } else {
    if (part.k.defined() || part.v.defined())
      fail<ShapeError>("memory_attention: a part of a memory has keys and values, or codes in place of both");
    check_codes(q, part.k_codes, true);
    check_codes(q, part.v_codes, false);
    if (part.v_codes.codes.size(1) != heads_of(part) || part.v_codes.size() != part.size() ||
        part.v_codes.bits != part.k_codes.bits)
      fail<ShapeError>("memory_attention: codes of ", part.k_codes.codes.sizes(), " keys and ",
                       part.v_codes.codes.sizes(), " values do not belong together");
  }
  const Tensor& beta = part.beta;
  if (!beta.defined()) return;
  const int64_t heads = heads_of(part);
  const bool fits = heads > 0 && beta.dim() == 3 && beta.size(0) == q.size(0) &&
                    beta.size(2) == part.size() && (beta.size(1) == q.size(1) || beta.size(1) == heads);
  if (!fits)
    fail<ShapeError>("memory_attention: beta must be [B,G,P] or [B,H,P] with P = ", part.size(), ", got ",
                     beta.sizes());
}

void check(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v) {
  if (q.dim() != 4) fail<ShapeError>("memory_attention: q must be [B,H,Q,E], got ", q.sizes());
  check_keys("keys and values", q, k, v);
  const int64_t keys = keys_of(k);
  if (keys > 0 && keys < q.size(2))
    fail<ShapeError>("memory_attention: ", q.size(2), " queries cannot be the last of ", keys, " keys");
  int64_t heads = k.defined() ? k.size(1) : 0;
  for (const MemoryPart& part : memory.parts) {
    check_part(q, part);
    const int64_t own = heads_of(part);
    if (heads > 0 && own > 0 && own != heads)
      fail<ShapeError>("memory_attention: a part of the memory has ", own, " heads, other keys have ", heads);
    heads = std::max(heads, own);
  }
}

Tensor with_dense_rows(const Tensor& t) { return !t.defined() || t.stride(-1) == 1 ? t : t.contiguous(); }
QuantisedTensor with_dense_rows(QuantisedTensor x) {
  if (!x.defined()) return x;
  x.codes = with_dense_rows(x.codes);
  if (x.low.strides() != x.step.strides() || x.low.stride(-1) != 1)
    x.low = x.low.contiguous(), x.step = x.step.contiguous();
  if (x.row_of.defined()) x.row_of = x.row_of.contiguous();
  return x;
}
/// Masses become fp32.
Memory with_dense_rows(Memory memory) {
  for (MemoryPart& part : memory.parts) {
    part.k = with_dense_rows(part.k), part.v = with_dense_rows(part.v);
    if (part.beta.defined()) part.beta = with_dense_rows(part.beta.to(at::kFloat));
    part.k_codes = with_dense_rows(part.k_codes), part.v_codes = with_dense_rows(part.v_codes);
  }
  return memory;
}

kernels::AttentionCodes codes_of(const QuantisedTensor& x, int64_t batch, int64_t head) {
  const auto scales = [&](const Tensor& t) {
    return static_cast<const uint16_t*>(t.const_data_ptr()) + batch * t.stride(0) + head * t.stride(1);
  };
  return {.codes = x.codes.const_data_ptr<uint8_t>() + batch * x.codes.stride(0) + head * x.codes.stride(1),
          .stride = x.codes.stride(2),
          .low = scales(x.low),
          .step = scales(x.step),
          .scale_stride = x.low.stride(2),
          .scale_row = x.row_of.defined() ? x.row_of.const_data_ptr<int32_t>() : nullptr};
}

/// Parts of one batch item and key head.
template <class T>
std::vector<kernels::AttentionPart<T>> parts_of(const Memory& memory, const Tensor& k, const Tensor& v,
                                                int64_t batch, int64_t head, int64_t group) {
  std::vector<kernels::AttentionPart<T>> parts;
  const auto rows = [&](const Tensor& t) {
    return static_cast<const T*>(t.const_data_ptr()) + batch * t.stride(0) + head * t.stride(1);
  };
  for (const MemoryPart& from : memory.parts) {
    if (from.size() == 0) continue;
    const Tensor& beta = from.beta;
    const bool per_query_head = beta.defined() && beta.size(1) != heads_of(from);
    const float* masses = nullptr;
    if (beta.defined())
      masses = beta.const_data_ptr<float>() + batch * beta.stride(0) +
               head * (per_query_head ? group : 1) * beta.stride(1);
    kernels::AttentionPart<T>& part = parts.emplace_back();
    part = {.keys = from.size(),
            .beta = masses,
            .beta_stride = per_query_head ? beta.stride(1) : 0,
            .causal = false};
    if (from.in_codes()) {
      part.bits = static_cast<int>(from.k_codes.bits);
      part.k_codes = codes_of(from.k_codes, batch, head);
      part.v_codes = codes_of(from.v_codes, batch, head);
    } else {
      part.k = rows(from.k), part.v = rows(from.v);
      part.k_stride = from.k.stride(2), part.v_stride = from.v.stride(2);
    }
  }
  if (keys_of(k) > 0)
    parts.push_back({.k = rows(k),
                     .v = rows(v),
                     .k_stride = k.stride(2),
                     .v_stride = v.stride(2),
                     .keys = k.size(2),
                     .causal = true});
  return parts;
}

int64_t key_heads_of(const Tensor& q, const Memory& memory, const Tensor& k) {
  for (const MemoryPart& part : memory.parts) {
    if (heads_of(part) > 0) return heads_of(part);
  }
  return k.defined() ? k.size(1) : q.size(1);
}

/// One key head of one batch item; `out` and `log_sum` [B,H,Q] (or undefined) are written.
template <class T>
kernels::Attention<T> attention_of(const Tensor& q, const std::vector<kernels::AttentionPart<T>>& parts,
                                   int64_t b, int64_t head, int64_t group, const Tensor& out,
                                   const Tensor& log_sum, float* scratch) {
  return {.q = static_cast<const T*>(q.const_data_ptr()) + b * q.stride(0) + head * group * q.stride(1),
          .out = static_cast<T*>(out.mutable_data_ptr()) + b * out.stride(0) + head * group * out.stride(1),
          .q_head_stride = q.stride(1),
          .q_stride = q.stride(2),
          .out_head_stride = out.stride(1),
          .out_stride = out.stride(2),
          .group = group,
          .queries = q.size(2),
          .dim = q.size(3),
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.size(3)))),
          .parts = parts.data(),
          .num_parts = static_cast<int64_t>(parts.size()),
          .scratch = scratch,
          .log_sum = log_sum.defined()
                         ? log_sum.mutable_data_ptr<float>() + (b * q.size(1) + head * group) * q.size(2)
                         : nullptr};
}

template <class T>
AttentionResult run_kernel(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v,
                           bool with_log_sum) {
  const int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), dim = q.size(3),
                key_heads = key_heads_of(q, memory, k), group = heads / key_heads;
  // Rows of one position lie together, as the output projection reads them.
  const Tensor out = at::empty({batch, queries, heads, dim}, q.options()).transpose(1, 2);
  const Tensor log_sum =
      with_log_sum ? at::empty({batch, heads, queries}, q.options().dtype(at::kFloat)) : Tensor();
  // As many rows as possible share the packed keys, as long as there is work for every thread.
  constexpr int64_t kTile = kernels::kAttentionTile;
  const int64_t rows = queries * group,
                share = batch * key_heads * rows / (2 * at::get_num_threads()) / kTile * kTile,
                block = std::clamp(share, kTile, kernels::kAttentionRows),
                blocks = (rows + block - 1) / block;
  // What one thread does at the least; waking it has its price.
  constexpr int64_t kWork = int64_t{1} << 18;  // multiplications
  const int64_t work = std::min(rows, block) * (memory.size() + keys_of(k)) * dim,
                grain = std::max<int64_t>(1, kWork / std::max<int64_t>(1, work));
  at::parallel_for(0, batch * key_heads * blocks, grain, [&](int64_t begin, int64_t end) {
    const auto scratch = std::make_unique_for_overwrite<float[]>(
        static_cast<std::size_t>(kernels::attention_scratch(std::min(rows, block), group, dim)));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / blocks / key_heads, head = task / blocks % key_heads,
                    row = task % blocks * block;
      kernels::attention(attention_of(q, parts_of<T>(memory, k, v, b, head, group), b, head, group, out,
                                      log_sum, scratch.get()),
                         row, std::min(rows, row + block));
    }
  });
  return {out, log_sum};
}
AttentionResult run_kernel(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v,
                           bool with_log_sum) {
  return q.scalar_type() == at::kFloat ? run_kernel<float>(q, memory, k, v, with_log_sum)
                                       : run_kernel<kernels::Bf16>(q, memory, k, v, with_log_sum);
}

/// Overwrites what is defined of `to`, contiguous. Sums are fp32 and in an order that the shapes alone
/// decide: a task owns a range of the keys of one head, and the ranges' shares of the queries' gradients are
/// added up one after the other.
template <class T>
void run_gradients(const Tensor& grad, const AttentionResult& result, const Tensor& q, const Memory& memory,
                   const Tensor& k, const Tensor& v, const AttentionInputs& to) {
  const int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), dim = q.size(3),
                key_heads = key_heads_of(q, memory, k), group = heads / key_heads,
                padded = kernels::linear_padded(dim), entries = memory.size();
  const auto sums_for = [](const Tensor& t) {
    return !t.defined() || t.scalar_type() == at::kFloat
               ? t
               : at::empty(t.sizes(), t.options().dtype(at::kFloat));
  };
  const Tensor targets[] = {to.memory.k, to.memory.v, to.k, to.v, to.memory.beta};
  Tensor sums[5];
  for (int i = 0; i < 5; ++i) {
    sums[i] = sums_for(targets[i]);
    if (sums[i].defined()) sums[i].zero_();
  }
  // One range of keys for each of sixteen tasks in all; the queries in panels, which bounds what they hold.
  constexpr int64_t kTasks = 16, kPanelRows = 4096;
  const int64_t blocks = (entries + keys_of(k) + kernels::kAttentionBlock - 1) / kernels::kAttentionBlock,
                most = std::clamp<int64_t>(kTasks / std::max<int64_t>(1, batch * key_heads), 1,
                                           std::max<int64_t>(1, blocks)),
                range = std::max<int64_t>(1, (blocks + most - 1) / most),
                ranges = std::max<int64_t>(1, (blocks + range - 1) / range),
                panel = std::max<int64_t>(1, kPanelRows / group);
  for (int64_t query = 0; query < queries; query += panel) {
    const int64_t count = std::min(panel, queries - query), rows = count * group;
    const Tensor q_sums = at::zeros({ranges, batch, key_heads, rows, padded}, q.options().dtype(at::kFloat));
    at::parallel_for(0, batch * key_heads * ranges, 1, [&](int64_t begin, int64_t end) {
      const auto scratch = std::make_unique_for_overwrite<float[]>(
          static_cast<std::size_t>(kernels::attention_gradient_scratch(group, dim)));
      for (int64_t task = begin; task < end; ++task) {
        const int64_t head_of_all = task / ranges, b = head_of_all / key_heads,
                      head = head_of_all % key_heads, share = task % ranges;
        const auto at_head = [&](const Tensor& t) {
          return t.defined() ? t.mutable_data_ptr<float>() + head_of_all * (t.numel() / (batch * key_heads))
                             : nullptr;
        };
        std::vector<kernels::AttentionPartGradient> part_sums;
        if (entries > 0) part_sums.push_back({at_head(sums[0]), at_head(sums[1]), at_head(sums[4])});
        if (keys_of(k) > 0) part_sums.push_back({at_head(sums[2]), at_head(sums[3]), nullptr});
        const auto parts = parts_of<T>(memory, k, v, b, head, group);
        kernels::attention_gradient<T>(
            {.attention = attention_of(q, parts, b, head, group, result.out, result.log_sum, scratch.get()),
             .grad = static_cast<const T*>(grad.const_data_ptr()) + b * grad.stride(0) +
                     head * group * grad.stride(1),
             .grad_head_stride = grad.stride(1),
             .grad_stride = grad.stride(2),
             .parts = part_sums.data(),
             .q = q_sums.mutable_data_ptr<float>() +
                  (share * batch * key_heads + head_of_all) * rows * padded},
            query * group, (query + count) * group, share * range, (share + 1) * range);
      }
    });
    if (!to.q.defined()) continue;
    const Tensor sum = q_sums[0];
    for (int64_t share = 1; share < ranges; ++share) sum.add_(q_sums[share]);
    to.q.view({batch, key_heads, group, queries, dim})
        .narrow(3, query, count)
        .copy_(sum.narrow(-1, 0, dim).reshape({batch, key_heads, count, group, dim}).transpose(2, 3));
  }
  for (int i = 0; i < 5; ++i) {
    if (targets[i].defined() && !targets[i].is_same(sums[i])) targets[i].copy_(sums[i]);
  }
}

/// Attention by a kernel, the CPU's or a device's own, which makes the weights anew for its gradients.
/// `codes`: a memory's, whose k and v are undefined then.
struct KernelAttention : torch::autograd::Function<KernelAttention> {
  using MaybeTensor = std::optional<Tensor>;  // in this form alone autograd takes undefined tensors
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const MaybeTensor& memory_k,
                        const MaybeTensor& memory_v, const MaybeTensor& beta, const MaybeTensor& k,
                        const MaybeTensor& v, const MemoryPart& codes) {
    const MemoryPart memory{*memory_k, *memory_v, *beta, codes.k_codes, codes.v_codes};
    const AttentionResult result = q.is_cpu() ? run_kernel(q, memory, *k, *v, /*with_log_sum=*/true)
                                              : device_kernels(q)->attention(q, memory, *k, *v, {}, true);
    ctx->save_for_backward({q, memory.k, memory.v, memory.beta, *k, *v, result.out, result.log_sum,
                            codes.k_codes.codes, codes.k_codes.low, codes.k_codes.step, codes.k_codes.row_of,
                            codes.v_codes.codes, codes.v_codes.low, codes.v_codes.step});
    ctx->saved_data["bits"] = codes.k_codes.bits;
    return result.out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    FOCUS_CHECK(!at::GradMode::is_enabled(), "attention by a kernel has no second derivative");
    const auto saved = ctx->get_saved_variables();
    std::vector<Tensor> to(7);  // none of the codes
    std::size_t there = 0;      // autograd numbers those that are
    for (std::size_t i = 0; i < 6; ++i) {
      if (saved[i].defined() && ctx->needs_input_grad(there++))
        to[i] = at::empty_like(saved[i], at::MemoryFormat::Contiguous);
    }
    const int64_t bits = ctx->saved_data["bits"].toInt();
    const MemoryPart memory{saved[1],
                            saved[2],
                            saved[3],
                            {saved[8], saved[9], saved[10], saved[11], bits},
                            {saved[12], saved[13], saved[14], {}, bits}};
    const Tensor grad = with_dense_rows(grads[0]);
    const AttentionResult result{saved[6], saved[7]};
    const AttentionInputs into{to[0], {to[1], to[2], to[3]}, to[4], to[5]};
    const Tensor& q = saved[0];
    if (!q.is_cpu())
      device_kernels(q)->attention_gradients(grad, result, q, memory.decoded(q.scalar_type()), saved[4],
                                             saved[5], into);
    else if (q.scalar_type() == at::kFloat)
      run_gradients<float>(grad, result, q, memory, saved[4], saved[5], into);
    else
      run_gradients<kernels::Bf16>(grad, result, q, memory, saved[4], saved[5], into);
    return to;
  }
};

Tensor tracked_attention(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v) {
  using Maybe = KernelAttention::MaybeTensor;
  const Memory dense = with_dense_rows(in_parts(memory, 1, q.scalar_type(), q.size(1)));
  const MemoryPart one = dense.parts.empty() ? MemoryPart{} : dense.parts[0];
  return KernelAttention::apply(q, Maybe(one.k), Maybe(one.v), Maybe(one.beta), Maybe(k), Maybe(v), one);
}

/// Where LibTorch's own attention is the better one: whole sequences without a memory on CUDA. It is built of
/// the same instructions as ours, from larger tiles of keys, and its backward pass makes five products where
/// ours, which gives the same result on every run, makes seven. Counted, not yet measured.
bool for_libtorch(const Tensor& q, const Memory& memory, const Tensor& k) {
  return q.is_cuda() && memory.size() == 0 && keys_of(k) == q.size(2) && k.size(1) == q.size(1);
}

/// The queries are the last of the keys; everything is visible in the plain form, so no array of theirs is
/// larger than scores and bias.
Tensor plain(const Tensor& q, const MemoryPart& memory, const Tensor& k, const Tensor& v) {
  const int64_t entries = keys_of(memory.k), keys = keys_of(k), queries = q.size(2);
  const Tensor all_k = entries == 0 ? k : keys == 0 ? memory.k : at::cat({memory.k, k}, 2);
  const Tensor all_v = entries == 0 ? v : keys == 0 ? memory.v : at::cat({memory.v, v}, 2);
  const bool masked = keys > 0 && queries > 1;
  if (!masked && !memory.beta.defined()) return attention(q, all_k, all_v, {});
  Tensor bias;
  if (masked) bias = causal_bias(queries, keys, q.device());
  if (!memory.beta.defined()) {
    // 0 and -inf are exact in every type.
    return attention(q, all_k, all_v, at::constant_pad_nd(bias, {entries, 0}).to(q.scalar_type()));
  }
  const int64_t bias_heads = memory.beta.size(1);
  Tensor beta = memory.beta.unsqueeze(2);  // [B, G or H, 1, P]
  if (masked) {
    beta = at::cat({beta.expand({-1, -1, queries, -1}),
                    bias.to(beta.scalar_type()).expand({q.size(0), bias_heads, queries, keys})},
                   -1);
  } else if (keys > 0) {
    beta = at::constant_pad_nd(beta, {0, keys});
  }
  const Tensor out = attention(q, all_k, all_v, beta);
  if (keys > 0) return out;
  // A memory whose masses are all zero shows nothing.
  const Tensor nothing =
      shared_heads(memory.beta, q.size(1)).eq(-std::numeric_limits<double>::infinity()).all(-1);
  return out.masked_fill(nothing.unsqueeze(-1).unsqueeze(-1), 0.0);
}

/// The keys that are not there yet as entries of no mass; what lies in their memory must not count.
Tensor with_keys_hidden(const Tensor& q, const MemoryPart& memory, const Tensor& k, const Tensor& v,
                        const Tensor& num_keys) {
  const int64_t queries = q.size(2), keys = k.size(2);
  const auto options = q.options();
  // Key s is there for query i if s < num_keys - queries + 1 + i.
  const Tensor last = num_keys + at::arange(1 - queries, 1, options.dtype(at::kInt));  // [Q]
  const Tensor hidden = at::arange(keys, options.dtype(at::kInt)).ge(last.unsqueeze(-1));
  const Tensor never = at::arange(keys, options.dtype(at::kInt)).ge(num_keys).unsqueeze(-1);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto bias_type = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Tensor bias = at::zeros({queries, keys}, options.dtype(bias_type)).masked_fill_(hidden, -kInfinity);
  Tensor all_k = k.masked_fill(never, 0.0), all_v = v.masked_fill(never, 0.0);
  const int64_t entries = keys_of(memory.k);
  if (entries > 0) {
    all_k = at::cat({memory.k, all_k}, 2), all_v = at::cat({memory.v, all_v}, 2);
    bias = at::constant_pad_nd(bias, {entries, 0});
    if (memory.beta.defined())
      bias = bias + at::constant_pad_nd(memory.beta.to(bias_type).unsqueeze(2), {0, keys});
  }
  return attention(q, all_k, all_v, bias);
}

}  // namespace

Tensor memory_attention(const Tensor& q_BHQE, const Memory& memory, const Tensor& k_BGSE,
                        const Tensor& v_BGSE, const Tensor& num_keys) {
  check(q_BHQE, memory, k_BGSE, v_BGSE);
  const auto type = q_BHQE.scalar_type();
  const bool is_tracked = tracked(q_BHQE, memory, k_BGSE, v_BGSE);
  if (num_keys.defined()) {
    if (!k_BGSE.defined() || num_keys.numel() != 1 || num_keys.scalar_type() != at::kInt ||
        num_keys.device() != q_BHQE.device() || is_tracked)
      fail<ShapeError>(
          "memory_attention: a number of keys needs keys, no gradient, and to be one int32 on the queries' "
          "device ",
          q_BHQE.device(), "; got ", num_keys.dtype(), " ", num_keys.sizes(), " on ", num_keys.device());
    if (q_BHQE.is_cpu()) {
      const int64_t count = *num_keys.const_data_ptr<int32_t>();
      return memory_attention(q_BHQE, memory, k_BGSE.narrow(2, 0, count), v_BGSE.narrow(2, 0, count));
    }
  }
  if (const DeviceKernels* kernels = device_kernels(q_BHQE);
      kernels != nullptr && kernels->serves_attention(q_BHQE) &&
      (num_keys.defined() || !for_libtorch(q_BHQE, memory, k_BGSE))) {
    const Tensor q = with_dense_rows(q_BHQE), k = with_dense_rows(k_BGSE), v = with_dense_rows(v_BGSE);
    if (is_tracked) return tracked_attention(q, memory, k, v);
    const Memory dense = with_dense_rows(in_parts(memory, DeviceKernels::kMemoryParts, type, q.size(1)));
    return kernels->attention(q, dense, k, v, num_keys, /*with_log_sum=*/false).out;
  }
  if (num_keys.defined())
    return with_keys_hidden(q_BHQE, joined(memory, type, q_BHQE.size(1)), k_BGSE, v_BGSE, num_keys);
  if (!q_BHQE.is_cpu() || (type != at::kFloat && type != at::kBFloat16))
    return memory_attention_reference(q_BHQE, memory, k_BGSE, v_BGSE);
  const Tensor q = with_dense_rows(q_BHQE), k = with_dense_rows(k_BGSE), v = with_dense_rows(v_BGSE);
  return is_tracked ? tracked_attention(q, memory, k, v)
                    : run_kernel(q, with_dense_rows(memory), k, v, false).out;
}

Tensor memory_attention_reference(const Tensor& q_BHQE, const Memory& given, const Tensor& k_BGSE,
                                  const Tensor& v_BGSE, int64_t block_bytes) {
  check(q_BHQE, given, k_BGSE, v_BGSE);
  const MemoryPart memory = joined(given, q_BHQE.scalar_type(), q_BHQE.size(1));
  const int64_t batch = q_BHQE.size(0), heads = q_BHQE.size(1), queries = q_BHQE.size(2),
                entries = keys_of(memory.k), keys = keys_of(k_BGSE);
  if (queries == 0 || entries + keys == 0) return at::zeros_like(q_BHQE);
  if (entries == 0 && queries == keys) {
    return at::scaled_dot_product_attention(q_BHQE, shared_heads(k_BGSE, heads), shared_heads(v_BGSE, heads),
                                            {}, 0.0,
                                            /*is_causal=*/true);
  }
  // A bias that is the same for all heads stays one array, and a fused kernel then holds no scores.
  const bool fused = q_BHQE.scalar_type() != at::kDouble && !memory.beta.defined();
  const int64_t width =
      (entries + keys) *
      static_cast<int64_t>(q_BHQE.scalar_type() == at::kDouble ? sizeof(double) : sizeof(float));
  const int64_t block =
      std::clamp<int64_t>(block_bytes / (fused ? width : width * batch * heads), 1, queries);
  if (block == queries) return plain(q_BHQE, memory, k_BGSE, v_BGSE);

  std::vector<Tensor> inputs = {Tensor()};
  for (const Tensor* t : {&memory.k, &memory.v, &memory.beta, &k_BGSE, &v_BGSE}) {
    if (t->defined()) inputs.push_back(*t);
  }
  const bool has_memory = memory.k.defined(), has_beta = memory.beta.defined(), has_keys = k_BGSE.defined();
  std::vector<Tensor> outputs;
  for (int64_t begin = 0; begin < queries; begin += block) {
    const int64_t size = std::min(block, queries - begin), visible = keys - queries + begin + size;
    inputs[0] = q_BHQE.narrow(2, begin, size);
    const auto run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      std::size_t next = 1;
      MemoryPart part;
      Tensor k, v;
      if (has_memory) part = {in[next], in[next + 1], {}}, next += 2;
      if (has_beta) part.beta = in[next++];
      if (has_keys && keys > 0) k = in[next].narrow(2, 0, visible), v = in[next + 1].narrow(2, 0, visible);
      return {plain(in[0], part, k, v)};
    };
    outputs.push_back(recomputed(run, inputs)[0]);
  }
  return at::cat(outputs, 2);
}

}  // namespace focus::ops
