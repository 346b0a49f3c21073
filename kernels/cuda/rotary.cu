// A thread makes sine and cosine of N frequencies at one position and turns them in kHeads heads with it.
#include "focus/kernels/cuda/rotary.h"

#include "pack.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kThreads = 256, kHeads = 4;

// Of a fp32 angle of any size. Its whole turns are taken off in fp64: 10^7 rad / pi is then off by 4e-10.
__device__ __forceinline__ void sine_cosine(float angle, float* sine, float* cosine) {
  const double halves = static_cast<double>(angle) * 0.318309886183790671538;  // in units of pi
  sincospif(static_cast<float>(halves - 2.0 * rint(0.5 * halves)), sine, cosine);
}

template <class T, class P, int N>
__global__ void __launch_bounds__(kThreads) rotary_kernel(Rotary<T, P> a) {
  const int64_t half = a.dim / 2;
  // Groups of heads: first those of part 0, then those of part 1.
  const int64_t groups = (a.part[0].heads + kHeads - 1) / kHeads;
  const bool second = blockIdx.y >= groups;
  const RotaryPart<T> part = second ? a.part[1] : a.part[0];
  const int64_t first = (static_cast<int64_t>(blockIdx.y) - (second ? groups : 0)) * kHeads;
  const int64_t position = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (position >= a.length) return;
  const float at = static_cast<float>(a.positions[position]) / a.scaling;
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * N; i < half;
       i += static_cast<int64_t>(blockDim.x) * N) {
    float sine[N], cosine[N];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      sine_cosine(at * a.inv_freq[i + j], &sine[j], &cosine[j]);
      if (a.backwards) sine[j] = -sine[j];
    }
    for (int64_t batch = blockIdx.z; batch < a.batch; batch += gridDim.z) {
      const T* in = part.in + batch * part.in_strides.batch + position * part.in_strides.position + i;
      T* out = part.out + batch * part.out_strides.batch + position * part.out_strides.position + i;
      // All loads before the first store: out may be in, so that the compiler cannot move them itself.
      float low[kHeads][N], high[kHeads][N];
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const int64_t head = min(first + h, part.heads - 1);
        load(in + head * part.in_strides.head, low[h]);
        load(in + head * part.in_strides.head + half, high[h]);
      }
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        if (first + h >= part.heads) continue;
        float x[N], y[N];
#pragma unroll
        for (int j = 0; j < N; ++j) {
          x[j] = low[h][j] * cosine[j] - high[h][j] * sine[j];
          y[j] = low[h][j] * sine[j] + high[h][j] * cosine[j];
        }
        store(out + (first + h) * part.out_strides.head, x);
        store(out + (first + h) * part.out_strides.head + half, y);
      }
    }
  }
}

}  // namespace

template <class T, class P>
void rotary(const Rotary<T, P>& a, void* stream) {
  const int64_t groups = div_up(a.part[0].heads, kHeads) + div_up(a.part[1].heads, kHeads);
  if (a.batch == 0 || a.length == 0 || a.dim < 2 || groups == 0) return;
  bool packs = a.dim / 2 % kPack<T> == 0;
  for (const RotaryPart<T>& part : a.part) {
    const HeadStrides &in = part.in_strides, &out = part.out_strides;
    packs = packs && (part.heads == 0 ||
                      packs_fit<T>({in.batch, in.head, in.position, out.batch, out.head, out.position},
                                   part.in, part.out));
  }
  const int64_t across = min(div_up(a.dim / 2, packs ? kPack<T> : 1), int64_t{32}), down = kThreads / across;
  launch(packs ? rotary_kernel<T, P, kPack<T>> : rotary_kernel<T, P, 1>,
         dim3(static_cast<unsigned>(div_up(a.length, down)), static_cast<unsigned>(groups), blocks(a.batch)),
         dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), 0,
         static_cast<cudaStream_t>(stream), a);
  check_launch("rotary");
}

template void rotary(const Rotary<float, int64_t>&, void*);
template void rotary(const Rotary<float, float>&, void*);
template void rotary(const Rotary<Bf16, int64_t>&, void*);
template void rotary(const Rotary<Bf16, float>&, void*);

}  // namespace focus::kernels::cuda
