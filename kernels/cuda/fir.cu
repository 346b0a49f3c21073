// Depthwise causal FIR, channels last: neighbouring threads take neighbouring channels, so that every load is
// coalesced; each thread makes kRows consecutive outputs of one channel and so reads each tap once for all of
// them.
#include "focus/kernels/cuda/fir.h"

#include "walk.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kRows = 8, kTapsAtOnce = 8, kThreads = 128;
constexpr int64_t kStretch = 1024;

template <class T>
__global__ void __launch_bounds__(kThreads) fir_kernel(const __grid_constant__ Fir<T> a, int64_t row_blocks) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= a.channels) return;
  const int64_t num_taps = a.filter.num_taps, inputs = a.length + num_taps - 1;
  const T* const taps = a.filter.taps + c / a.filter.run * a.filter.filter_stride;
  const float skip = a.skip != nullptr ? widen(a.skip[c]) : 0.f;
  for (int64_t batch = blockIdx.z; batch < a.batch; batch += gridDim.z) {
    const T* const input = a.x + batch * a.x_batch + c;
    T* const output = a.y + batch * a.length * a.channels + c;
    for (int64_t block = blockIdx.y; block < row_blocks; block += gridDim.y) {
      const int64_t t0 = block * kRows;
      const int rows = static_cast<int>(min(static_cast<int64_t>(kRows), a.length - t0));
      float acc[kRows] = {};
      // A window of inputs slides through registers: one new load per tap. In the last block it reaches past
      // the inputs.
      const auto load = [&](int64_t t) { return t < inputs ? widen(input[t * a.channels]) : 0.f; };
      float window[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) window[i] = load(t0 + i);
      for (int64_t j = 0; j < num_taps; ++j) {
        const float tap = widen(taps[j * a.filter.tap_stride]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) acc[i] = fmaf(tap, window[i], acc[i]);
#pragma unroll
        for (int i = 0; i + 1 < kRows; ++i) window[i] = window[i + 1];
        window[kRows - 1] = load(t0 + j + kRows);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (i >= rows) break;
        if (a.skip != nullptr) acc[i] = fmaf(skip, load(t0 + i + num_taps - 1 - a.skip_lag), acc[i]);
        output[(t0 + i) * a.channels] = narrow<T>(acc[i]);
      }
    }
  }
}

// A thread sums kTapsAtOnce taps of a channel over a stretch of rows; inputs slide through registers.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fir_taps_gradient_kernel(const __grid_constant__ FirTapsGradient<T> a, int64_t channel_blocks,
                             int64_t stretches) {
  const int64_t block = blockIdx.x, c = block % channel_blocks * kThreads + threadIdx.x,
                part = block / channel_blocks, b = part / stretches, t0 = part % stretches * kStretch,
                t1 = min(t0 + kStretch, a.length), j0 = static_cast<int64_t>(blockIdx.y) * kTapsAtOnce;
  if (c >= a.channels) return;
  const T* const x = a.x + b * a.x_batch + j0 * a.channels + c;
  const T* const dy = a.dy + b * a.dy_batch + c;
  const int64_t inputs = a.length + a.num_taps - 1 - j0;
  const auto load = [&](int64_t t) { return t < inputs ? widen(x[t * a.channels]) : 0.f; };
  float sum[kTapsAtOnce] = {}, window[kTapsAtOnce];
#pragma unroll
  for (int i = 0; i + 1 < kTapsAtOnce; ++i) window[i] = load(t0 + i);
#pragma unroll 4
  for (int64_t t = t0; t < t1; ++t) {
    window[kTapsAtOnce - 1] = load(t + kTapsAtOnce - 1);
    const float g = widen(dy[t * a.channels]);
#pragma unroll
    for (int i = 0; i < kTapsAtOnce; ++i) sum[i] = fmaf(g, window[i], sum[i]);
#pragma unroll
    for (int i = 0; i + 1 < kTapsAtOnce; ++i) window[i] = window[i + 1];
  }
  float* const to = a.partial + (part * a.num_taps + j0) * a.channels + c;
#pragma unroll
  for (int i = 0; i < kTapsAtOnce; ++i) {
    if (j0 + i < a.num_taps) to[i * a.channels] = sum[i];
  }
}

}  // namespace

template <class T>
void fir_forward(const Fir<T>& args, void* stream) {
  if (args.batch == 0 || args.length == 0 || args.channels == 0) return;
  if constexpr (sizeof(T) == 2) {
    if (on_tensor_cores(args.filter)) {
      Walk<T> a{};
      const int64_t back = args.filter.num_taps - 1;
      a.x = args.x + back * args.channels, a.x_batch = args.x_batch, a.x_row = args.channels;
      a.carried = args.x, a.carried_batch = args.x_batch;
      set_filter(a, args.filter);
      a.skip = args.skip, a.skip_lag = args.skip_lag;
      a.y = args.y, a.y_batch = args.length * args.channels;
      a.batch = args.batch, a.length = args.length, a.channels = args.channels;
      return walk_filter<T, Inner::toeplitz, false>(a, stream);
    }
  }
  const int64_t row_blocks = div_up(args.length, kRows);
  const dim3 grid(static_cast<unsigned>(div_up(args.channels, kThreads)), blocks(row_blocks),
                  blocks(args.batch));
  launch(fir_kernel<T>, grid, dim3(kThreads), 0, static_cast<cudaStream_t>(stream), args, row_blocks);
  check_launch("fir_forward");
}

int64_t fir_stretches(int64_t length) { return div_up(length, kStretch); }

template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, void* stream) {
  if (args.batch == 0 || args.length == 0 || args.channels == 0) return;
  const int64_t channel_blocks = div_up(args.channels, kThreads), stretches = fir_stretches(args.length);
  const dim3 grid(static_cast<unsigned>(channel_blocks * stretches * args.batch),
                  static_cast<unsigned>(div_up(args.num_taps, kTapsAtOnce)));
  launch(fir_taps_gradient_kernel<T>, grid, dim3(kThreads), 0, static_cast<cudaStream_t>(stream), args,
         channel_blocks, stretches);
  check_launch("fir_taps_gradient");
}

template void fir_forward(const Fir<float>&, void*);
template void fir_forward(const Fir<Bf16>&, void*);
template void fir_taps_gradient(const FirTapsGradient<float>&, void*);
template void fir_taps_gradient(const FirTapsGradient<Bf16>&, void*);

}  // namespace focus::kernels::cuda
