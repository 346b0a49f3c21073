#include "focus/kernels/cuda/attention.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cuda_kernels.h"
#include "focus/ops/attention.h"

namespace focus::ops {
namespace {

using at::Tensor;
using kernels::cuda::Attention;
using kernels::cuda::AttentionGradients;
using kernels::cuda::AttentionPart;
using kernels::cuda::QuantisedRows;
using kernels::cuda::RowStrides;

RowStrides strides_of(const Tensor& t) { return {t.stride(0), t.stride(1), t.stride(2)}; }
template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* data_or_null(const Tensor& t) {
  return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}
int64_t keys_of(const Tensor& k) { return k.defined() ? k.size(2) : 0; }

template <class T>
AttentionPart<T>& add_part(Attention<T>& a, const Tensor& k, const Tensor& v) {
  a.key_heads = k.size(1);
  AttentionPart<T>& part = a.parts[a.num_parts++];
  part.k = data<T>(k), part.v = data<T>(v);
  part.k_strides = strides_of(k), part.v_strides = strides_of(v);
  part.keys = k.size(2);
  return part;
}

QuantisedRows rows_of(const QuantisedTensor& x) {
  return {.codes = data<uint8_t>(x.codes),
          .strides = strides_of(x.codes),
          .low = data<uint16_t>(x.low),
          .step = data<uint16_t>(x.step),
          .scale_strides = strides_of(x.low),
          .scale_row = x.row_of.defined() ? data<int32_t>(x.row_of) : nullptr,
          .per_channel = x.row_of.defined()};
}

static_assert(DeviceKernels::kMemoryParts < kernels::cuda::kMaxAttentionParts);

template <class T>
void add_memory(Attention<T>& a, const MemoryPart& from) {
  if (from.size() == 0) return;
  const Tensor &k = from.in_codes() ? from.k_codes.codes : from.k, &beta = from.beta;
  AttentionPart<T>& part = from.in_codes() ? a.parts[a.num_parts++] : add_part(a, k, from.v);
  if (from.in_codes()) {
    a.key_heads = k.size(1);
    part.keys = k.size(2);
    part.bits = static_cast<int>(from.k_codes.bits);
    part.k_codes = rows_of(from.k_codes), part.v_codes = rows_of(from.v_codes);
  }
  if (!beta.defined()) return;
  part.beta = beta.const_data_ptr<float>();
  part.beta_strides = strides_of(beta);
  part.beta_per_query_head = beta.size(1) != k.size(1);
}

/// The entries are the first parts, if there are any, the open bases the last.
template <class T>
Attention<T> arguments(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v,
                       const Tensor& num_keys, const Tensor& out, const Tensor& log_sum) {
  Attention<T> a;
  a.q = data<T>(q), a.out = data_or_null<T>(out), a.log_sum = data_or_null<float>(log_sum);
  a.q_strides = strides_of(q);
  if (out.defined()) a.out_strides = strides_of(out);
  a.batch = q.size(0), a.heads = a.key_heads = q.size(1), a.queries = q.size(2), a.dim = q.size(3);
  a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.dim)));
  for (const MemoryPart& part : memory.parts) add_memory(a, part);
  if (keys_of(k) > 0) add_part(a, k, v).causal = true;
  if (num_keys.defined()) a.parts[a.num_parts - 1].keys_on_device = num_keys.const_data_ptr<int32_t>();
  return a;
}

template <class T>
void forward(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v, const Tensor& num_keys,
             const AttentionResult& to) {
  Attention<T> a = arguments<T>(q, memory, k, v, num_keys, to.out, to.log_sum);
  Memory decoded;
  const auto in_codes = [](const MemoryPart& part) { return part.in_codes(); };
  if (std::ranges::any_of(memory.parts, in_codes) && !kernels::cuda::attention_reads_codes(a)) {
    for (const MemoryPart& part : memory.parts) decoded.parts.push_back(part.decoded(q.scalar_type()));
    a = arguments<T>(q, decoded, k, v, num_keys, to.out, to.log_sum);
  }
  Tensor workspace;
  if (const int64_t values = kernels::cuda::attention_workspace(a); values > 0)
    workspace = at::empty({values}, q.options().dtype(at::kFloat));
  kernels::cuda::attention_forward(a, data_or_null<float>(workspace), current_stream(q.device()));
}

template <class T>
PartialAttention partial(const Tensor& q, const Memory& memory, const Tensor& k, const Tensor& v) {
  const Attention<T> a = arguments<T>(q, memory, k, v, {}, {}, {});
  const int64_t shares = kernels::cuda::attention_shares(a), rows = a.batch * a.heads * a.queries;
  const auto options = q.options().dtype(at::kFloat);
  const Tensor workspace = at::empty({shares * rows * (a.dim + 1)}, options);
  float* outs = workspace.mutable_data_ptr<float>();
  float* log_sums = outs + shares * rows * a.dim;
  void* const stream = current_stream(q.device());
  kernels::cuda::attention_shares_forward(a, outs, stream);
  PartialAttention of = {workspace.narrow(0, 0, rows * a.dim).view(q.sizes()),
                         workspace.narrow(0, shares * rows * a.dim, rows).view(q.sizes().slice(0, 3))};
  if (shares > 1) {
    of = {at::empty(q.sizes(), options), at::empty(q.sizes().slice(0, 3), options)};
    kernels::cuda::attention_merge<float>(outs, log_sums, shares, of.out.mutable_data_ptr<float>(),
                                          strides_of(of.out), of.log_sum.mutable_data_ptr<float>(), a.batch,
                                          a.heads, a.queries, a.dim, stream);
  }
  of.log_sum.mul_(std::numbers::ln2);
  return of;
}

template <class T>
void backward(const Tensor& grad, const AttentionResult& result, const Tensor& q, const MemoryPart& memory,
              const Tensor& k, const Tensor& v, const AttentionInputs& to) {
  const Attention<T> a = arguments<T>(q, memory, k, v, {}, result.out, result.log_sum);
  const Tensor workspace = at::empty_like(result.log_sum);
  AttentionGradients<T> g;
  g.grad = data<T>(grad), g.grad_strides = strides_of(grad);
  g.q = data_or_null<T>(to.q);
  g.workspace = data_or_null<float>(workspace);
  int part = 0;
  if (keys_of(memory.k) > 0) {
    g.k[part] = data_or_null<T>(to.memory.k), g.v[part] = data_or_null<T>(to.memory.v);
    g.beta[part++] = data_or_null<float>(to.memory.beta);
  }
  if (keys_of(k) > 0) g.k[part] = data_or_null<T>(to.k), g.v[part] = data_or_null<T>(to.v);
  kernels::cuda::attention_backward(a, g, current_stream(q.device()));
}

}  // namespace

bool CudaKernels::serves_attention(const Tensor& q_BHQE) const {
  return (q_BHQE.scalar_type() == at::kFloat || q_BHQE.scalar_type() == at::kBFloat16) &&
         q_BHQE.size(3) <= kernels::cuda::kMaxAttentionDim;
}

AttentionResult CudaKernels::attention(const Tensor& q, const Memory& memory, const Tensor& k,
                                       const Tensor& v, const Tensor& num_keys, bool with_log_sum) const {
  const c10::DeviceGuard guard(q.device());
  // Rows of one position lie together, as the output projection reads them.
  AttentionResult result;
  result.out = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options()).transpose(1, 2);
  if (with_log_sum)
    result.log_sum = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
  q.scalar_type() == at::kFloat ? forward<float>(q, memory, k, v, num_keys, result)
                                : forward<kernels::Bf16>(q, memory, k, v, num_keys, result);
  return result;
}

PartialAttention CudaKernels::partial_attention(const Tensor& q, const Memory& memory, const Tensor& k,
                                                const Tensor& v) const {
  const c10::DeviceGuard guard(q.device());
  return q.scalar_type() == at::kFloat ? partial<float>(q, memory, k, v)
                                       : partial<kernels::Bf16>(q, memory, k, v);
}

void CudaKernels::attention_gradients(const Tensor& grad, const AttentionResult& result, const Tensor& q,
                                      const MemoryPart& memory, const Tensor& k, const Tensor& v,
                                      const AttentionInputs& to) const {
  const c10::DeviceGuard guard(q.device());
  q.scalar_type() == at::kFloat ? backward<float>(grad, result, q, memory, k, v, to)
                                : backward<kernels::Bf16>(grad, result, q, memory, k, v, to);
}

}  // namespace focus::ops
