// A block takes a row: its threads keep what they have read in registers, so that a row of up to kHeld packs
// a thread (8192 bf16) is read once; what a wider row has beyond that is read again.
#include "focus/kernels/cuda/rms_norm.h"

#include "pack.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kHeld = 4;
constexpr unsigned kAllLanes = 0xffffffffu;

// The sum over all threads, the same in each. `partial` must not be in use by an earlier call: the first
// barrier sees to it.
__device__ __forceinline__ float block_sum(float x, float (&partial)[kWarps]) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += partial[i];
  return sum;
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rms_norm_kernel(RmsNorm<T> a) {
  SHARED(partial, float[kWarps]);
  constexpr int64_t kStep = int64_t{kThreads} * N;
  const int64_t mine = static_cast<int64_t>(threadIdx.x) * N, rest = kHeld * kStep + mine;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t start = row * a.width;
    const T* x = a.x + start;
    float squares = 0.f;
    const auto read = [&](int64_t column, float(&v)[N]) {
      load(x + column, v);
      if (a.delta != nullptr) {
        float delta[N];
        load(a.delta + start + column, delta);
#pragma unroll
        for (int j = 0; j < N; ++j) v[j] = rounded<T>(v[j] + delta[j]);
        store(a.sum + start + column, v);
      }
#pragma unroll
      for (int j = 0; j < N; ++j) squares = fmaf(v[j], v[j], squares);
    };
    float held[kHeld][N];
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (mine + i * kStep < a.width) read(mine + i * kStep, held[i]);
#pragma unroll 1
    for (int64_t column = rest; column < a.width; column += kStep) {
      float v[N];
      read(column, v);
    }
    const float mean = block_sum(squares, partial) / static_cast<float>(a.width);
    const float root = a.eps_inside ? sqrtf(mean + a.eps) : sqrtf(mean) + a.eps, inverse = 1.f / root;
    if (a.root != nullptr && threadIdx.x == 0) a.root[row] = root;
    const auto write = [&](int64_t column, float(&v)[N]) {
      float scale[N];
      load(a.scale + column, scale);
#pragma unroll
      for (int j = 0; j < N; ++j)
        v[j] = (a.eps_inside ? rounded<T>(v[j] * inverse) : v[j] * inverse) * scale[j];
      store(a.y + start + column, v);
    };
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (mine + i * kStep < a.width) write(mine + i * kStep, held[i]);
    const T* summed = a.delta != nullptr ? a.sum + start : x;  // a thread reads what it wrote itself
#pragma unroll 1
    for (int64_t column = rest; column < a.width; column += kStep) {
      float v[N];
      load(summed + column, v);
      write(column, v);
    }
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) rms_norm_gradient_kernel(RmsNormGradient<T> a) {
  SHARED(partial, float[kWarps]);
  constexpr int64_t kStep = int64_t{kThreads} * N;
  const int64_t mine = static_cast<int64_t>(threadIdx.x) * N, rest = kHeld * kStep + mine;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t start = row * a.width;
    const auto read = [&](int64_t column, float(&x)[N], float(&g)[N]) {  // g = dy scale
      float scale[N];
      load(a.x + start + column, x);
      load(a.dy + start + column, g);
      load(a.scale + column, scale);
#pragma unroll
      for (int j = 0; j < N; ++j) g[j] *= scale[j];
    };
    float dot = 0.f, x_held[kHeld][N], g_held[kHeld][N];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (mine + i * kStep >= a.width) continue;
      read(mine + i * kStep, x_held[i], g_held[i]);
#pragma unroll
      for (int j = 0; j < N; ++j) dot = fmaf(x_held[i][j], g_held[i][j], dot);
    }
#pragma unroll 1
    for (int64_t column = rest; column < a.width; column += kStep) {
      float x[N], g[N];
      read(column, x, g);
#pragma unroll
      for (int j = 0; j < N; ++j) dot = fmaf(x[j], g[j], dot);
    }
    dot = block_sum(dot, partial);
    // d root / dx is x / (D r), where r = root - eps or, with eps inside, r = root; r = 0 only where x = 0.
    const float root = a.root[row], inverse = 1.f / root, r = a.eps_inside ? root : max(root - a.eps, 1e-30f);
    const float factor = -dot * inverse * inverse / (r * static_cast<float>(a.width));
    const auto write = [&](int64_t column, const float(&x)[N], const float(&g)[N]) {
      float dx[N];
      if (a.dsum != nullptr)
        load(a.dsum + start + column, dx);
      else
        for (int j = 0; j < N; ++j) dx[j] = 0.f;
#pragma unroll
      for (int j = 0; j < N; ++j) dx[j] += fmaf(x[j], factor, g[j] * inverse);
      store(a.dx + start + column, dx);
    };
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (mine + i * kStep < a.width) write(mine + i * kStep, x_held[i], g_held[i]);
#pragma unroll 1
    for (int64_t column = rest; column < a.width; column += kStep) {
      float x[N], g[N];
      read(column, x, g);
      write(column, x, g);
    }
  }
}

// A warp takes every kWarps-th row of the part, a lane N columns; the warps' sums meet in shared memory.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    scale_gradient_kernel(const T* __restrict__ x, const T* __restrict__ dy, const float* __restrict__ root,
                          float* __restrict__ parts, int64_t rows, int64_t width) {
  SHARED(sums, float[kWarps][32 * N]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = (int64_t{blockIdx.x} * 32 + lane) * N;
  for (int64_t part = blockIdx.y; part * kScaleRows < rows; part += gridDim.y) {
    const int64_t end = min(rows, (part + 1) * kScaleRows);
    float sum[N] = {};
    if (column < width) {
#pragma unroll 1  // unrolled, the compiler spills
      for (int64_t row = part * kScaleRows + warp; row < end; row += kWarps) {
        float a[N], b[N];
        load(x + row * width + column, a);
        load(dy + row * width + column, b);
        const float inverse = 1.f / root[row];
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = fmaf(a[j] * inverse, b[j], sum[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) sums[warp][j * 32 + lane] = sum[j];
    __syncthreads();
    if (warp == 0 && column < width) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float total = 0.f;
        for (int i = 0; i < kWarps; ++i) total += sums[i][j * 32 + lane];
        parts[part * width + column + j] = total;
      }
    }
    __syncthreads();
  }
}

}  // namespace

template <class T>
void rms_norm(const RmsNorm<T>& a, void* stream) {
  if (a.rows == 0 || a.width == 0) return;
  const bool packs = packs_fit<T>({a.width}, a.x, a.delta, a.sum, a.scale, a.y);
  launch(packs ? rms_norm_kernel<T, kPack<T>> : rms_norm_kernel<T, 1>, dim3(row_blocks(a.rows)),
         dim3(kThreads), 0, static_cast<cudaStream_t>(stream), a);
  check_launch("rms_norm");
}

template <class T>
void rms_norm_gradient(const RmsNormGradient<T>& a, void* stream) {
  if (a.rows == 0 || a.width == 0) return;
  const bool packs = packs_fit<T>({a.width}, a.x, a.scale, a.dy, a.dsum, a.dx);
  launch(packs ? rms_norm_gradient_kernel<T, kPack<T>> : rms_norm_gradient_kernel<T, 1>,
         dim3(row_blocks(a.rows)), dim3(kThreads), 0, static_cast<cudaStream_t>(stream), a);
  check_launch("rms_norm_gradient");
}

template <class T>
void rms_norm_scale_gradient(const T* x, const T* dy, const float* root, float* parts, int64_t rows,
                             int64_t width, void* stream) {
  if (rows == 0 || width == 0) return;
  const bool packs = packs_fit<T>({width}, x, dy);
  const int64_t columns = 32 * (packs ? kPack<T> : 1);
  launch(packs ? scale_gradient_kernel<T, kPack<T>> : scale_gradient_kernel<T, 1>,
         dim3(static_cast<unsigned>(div_up(width, columns)), blocks(div_up(rows, kScaleRows))),
         dim3(kThreads), 0, static_cast<cudaStream_t>(stream), x, dy, root, parts, rows, width);
  check_launch("rms_norm_scale_gradient");
}

#define FOCUS_FOR(T)                                                 \
  template void rms_norm(const RmsNorm<T>&, void*);                  \
  template void rms_norm_gradient(const RmsNormGradient<T>&, void*); \
  template void rms_norm_scale_gradient(const T*, const T*, const float*, float*, int64_t, int64_t, void*);
FOCUS_FOR(float)
FOCUS_FOR(Bf16)
#undef FOCUS_FOR

}  // namespace focus::kernels::cuda
