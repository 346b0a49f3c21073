#include "focus/kernels/cuda/sample.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

Tensor CudaKernels::choose_tokens(const Tensor& logits_in, const Tensor& uniform_in,
                                  const TokenChoice& choice) const {
  if (logits_in.size(1) > kernels::cuda::kMaxTokens) return {};
  const c10::DeviceGuard guard(logits_in.device());
  const Tensor logits = logits_in.stride(1) == 1 ? logits_in : logits_in.contiguous(),
               uniform = uniform_in.contiguous();
  Tensor chosen = at::empty({logits.size(0)}, logits.options().dtype(at::kLong));
  with_type(logits, [&]<class T>(T*) {
    kernels::cuda::sample<T>({.logits = data<T>(logits),
                              .uniform = data<float>(uniform),
                              .chosen = written<int64_t>(chosen),
                              .rows = logits.size(0),
                              .logits_stride = logits.stride(0),
                              .tokens = logits.size(1),
                              .temperature = choice.temperature,
                              .top_k = choice.top_k,
                              .top_p = choice.top_p},
                             current_stream(logits.device()));
  });
  return chosen;
}

}  // namespace focus::ops
