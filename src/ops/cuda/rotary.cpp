#include "focus/kernels/cuda/rotary.h"

#include <c10/core/DeviceGuard.h>

#include "cuda_kernels.h"

namespace focus::ops {

using at::Tensor;

namespace {

namespace cuda = kernels::cuda;

template <class T>
cuda::RotaryPart<T> part(const DeviceKernels::Turn& turn) {
  if (!turn.in.defined()) return {};
  const auto strides = [](const Tensor& t) {
    return cuda::HeadStrides{t.stride(0), t.stride(1), t.stride(2)};
  };
  return {data<T>(turn.in), written<T>(turn.out), strides(turn.in), strides(turn.out), turn.in.size(1)};
}

}  // namespace

void CudaKernels::rotate(const Turn& q, const Turn& k, const Tensor& positions, const Tensor& inv_freq,
                         double scaling, bool backwards) const {
  const c10::DeviceGuard guard(q.in.device());
  with_type(q.in, [&]<class T>(T*) {
    const auto run = [&]<class P>(const P* at) {
      cuda::rotary<T, P>({.part = {part<T>(q), part<T>(k)},
                          .positions = at,
                          .inv_freq = data<float>(inv_freq),
                          .batch = q.in.size(0),
                          .length = q.in.size(2),
                          .dim = q.in.size(3),
                          .scaling = static_cast<float>(scaling),
                          .backwards = backwards},
                         current_stream(q.in.device()));
    };
    positions.scalar_type() == at::kLong ? run(data<int64_t>(positions)) : run(data<float>(positions));
  });
}

}  // namespace focus::ops
