// Sequences and filters as the kernels take them.
#pragma once

#include "cuda_kernels.h"
#include "focus/kernels/cuda/fir.h"

namespace focus::ops {

/// x [B, T, C] with rows that follow each other: as it is, whatever lies between its batches, or a copy.
inline at::Tensor with_dense_rows(const at::Tensor& x) {
  return x.stride(2) == 1 && x.stride(1) == x.size(2) ? x : x.contiguous();
}

template <class T>
kernels::cuda::Taps<T> kernel_taps(const FilterTaps& filter, int64_t channels) {
  const at::Tensor& w = filter.taps_GK;
  const int64_t last = filter.newest_first ? (w.size(1) - 1) * w.stride(1) : 0;
  return {data<T>(w) + last, w.size(1), filter.newest_first ? -w.stride(1) : w.stride(1), w.stride(0),
          channels / w.size(0)};
}

}  // namespace focus::ops
