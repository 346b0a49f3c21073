#include "focus/ops/partial_attention.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "device_kernels.h"
#include "focus/core/error.h"
#include "focus/ops/shared_heads.h"
#include "memory_parts.h"

namespace focus::ops {
namespace {

using at::Tensor;

constexpr double kNothing = -1e30;  // finite, so that no gradient of nothing is one of infinity
constexpr int64_t kFewestKeys = 256;

/// `q` is scaled and of the type that is computed in.
PartialAttention read(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias) {
  const int64_t heads = q.size(1);
  const auto of_heads = [&](const Tensor& t) { return shared_heads(t, heads).to(q.scalar_type()); };
  Tensor scores = at::matmul(q, of_heads(k).transpose(-1, -2));
  if (bias.defined()) scores = scores.add_(bias);
  const Tensor most = scores.detach().amax(-1, /*keepdim=*/true).clamp_min(kNothing);
  const Tensor weight = scores.sub_(most).exp_();
  const Tensor sum = weight.sum(-1, /*keepdim=*/true).clamp_min(std::numeric_limits<float>::min());
  return {at::matmul(weight, of_heads(v)) / sum, (most + sum.log()).squeeze(-1)};
}

}  // namespace

PartialAttention partial_attention(const Tensor& q_BHQE, const Memory& memory, const Tensor& k_BGSE,
                                   const Tensor& v_BGSE, int64_t block_bytes) {
  const bool has_keys = k_BGSE.defined() && k_BGSE.size(2) > 0;
  FOCUS_CHECK(q_BHQE.size(2) > 0 && (memory.size() > 0 || has_keys), "partial attention of nothing");
  for (const MemoryPart& part : memory.parts)
    FOCUS_CHECK(!part.in_codes(), "partial attention reads no codes");
  const auto rows = [](const Tensor& t) { return !t.defined() || t.stride(-1) == 1 ? t : t.contiguous(); };
  if (const DeviceKernels* kernels = device_kernels(q_BHQE);
      kernels != nullptr && !tracked(q_BHQE, memory, k_BGSE, v_BGSE) && kernels->serves_attention(q_BHQE)) {
    Memory dense = in_parts(memory, DeviceKernels::kMemoryParts, q_BHQE.scalar_type(), q_BHQE.size(1));
    for (MemoryPart& part : dense.parts) {
      part.k = rows(part.k), part.v = rows(part.v);
      if (part.beta.defined()) part.beta = part.beta.to(at::kFloat);
    }
    return kernels->partial_attention(rows(q_BHQE), dense, rows(k_BGSE), rows(v_BGSE));
  }

  const auto type = q_BHQE.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t queries = q_BHQE.size(2), heads = q_BHQE.size(1);
  const Tensor q = q_BHQE.to(type) / std::sqrt(static_cast<double>(q_BHQE.size(3)));
  const int64_t bytes_of_key = static_cast<int64_t>(at::elementSize(type)) * q.size(0) * heads * queries,
                block = std::max(block_bytes / bytes_of_key, kFewestKeys);
  PartialAttention all;
  const auto add = [&](const Tensor& k, const Tensor& v, const Tensor& bias) {
    for (int64_t begin = 0; begin < k.size(2); begin += block) {
      const int64_t count = std::min(block, k.size(2) - begin);
      const PartialAttention part = read(q, k.narrow(2, begin, count), v.narrow(2, begin, count),
                                         bias.defined() ? bias.narrow(-1, begin, count) : bias);
      all = all.out.defined() ? merged(all, part) : part;
    }
  };
  if (has_keys)
    add(k_BGSE, v_BGSE, queries > 1 ? causal_bias(queries, k_BGSE.size(2), q.device()) : Tensor());
  for (const MemoryPart& part : memory.parts) {
    if (part.size() == 0) continue;
    add(part.k, part.v,
        part.beta.defined() ? shared_heads(part.beta.unsqueeze(2), heads).to(type) : Tensor());
  }
  return all;
}

PartialAttention merged(const PartialAttention& a, const PartialAttention& b) {
  // The difference of two log-sums of nothing is none.
  const Tensor share = at::sigmoid((b.log_sum - a.log_sum).nan_to_num(0.0));
  return {at::lerp(a.out, b.out, share.unsqueeze(-1)), at::logaddexp(a.log_sum, b.log_sum)};
}

}  // namespace focus::ops
