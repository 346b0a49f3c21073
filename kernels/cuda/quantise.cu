// Sixteen values a thread: sixteen bytes are written at once, and two or four times as many read.
#include "focus/kernels/cuda/quantise.h"

#include "e4m3.h"
#include "pack.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kThreads = 256, kValues = 16;

template <class T, bool kVectors>
__global__ void __launch_bounds__(kThreads)
    quantise_kernel(const T* __restrict__ x, float scale, uint8_t* __restrict__ y, int64_t size) {
  const int64_t start = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kValues;
  if (kVectors && start + kValues <= size) {
    float v[kValues];
    load(x + start, v);
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      word[i] = e4m3_pair(v[4 * i] * scale, v[4 * i + 1] * scale) |
                e4m3_pair(v[4 * i + 2] * scale, v[4 * i + 3] * scale) << 16;
    store_vector(reinterpret_cast<uint4*>(y + start), make_uint4(word[0], word[1], word[2], word[3]));
    return;
  }
  for (int64_t i = start; i < min(size, start + kValues); ++i)
    y[i] = static_cast<uint8_t>(e4m3_pair(widen(x[i]) * scale, 0.f));
}

}  // namespace

template <class T>
void quantise_e4m3(const T* x, float scale, uint8_t* y, int64_t size, void* stream) {
  if (size == 0) return;
  launch(packs_fit<T>({}, x, y) ? quantise_kernel<T, true> : quantise_kernel<T, false>,
         dim3(static_cast<unsigned>(div_up(size, int64_t{kThreads} * kValues))), dim3(kThreads), 0,
         static_cast<cudaStream_t>(stream), x, scale, y, size);
  check_launch("quantise_e4m3");
}

template void quantise_e4m3(const float*, float, uint8_t*, int64_t, void*);
template void quantise_e4m3(const Bf16*, float, uint8_t*, int64_t, void*);

}  // namespace focus::kernels::cuda
