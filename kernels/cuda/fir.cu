// Depthwise causal FIR, channels last: neighbouring threads take neighbouring channels, so that every load is
// coalesced; each thread makes kRows consecutive outputs of one channel and so reads each tap once for all of
// them.
#include "focus/kernels/cuda/fir.h"

#include "platform.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kRows = 8;
constexpr int kThreads = 128;

__global__ void fir_kernel(const float* __restrict__ x, const float* __restrict__ taps, float* __restrict__ y,
                           int64_t batches, int64_t length, int64_t num_taps, int64_t channels,
                           int64_t row_blocks) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= channels) return;
  const int64_t inputs = length + num_taps - 1;
  for (int64_t batch = blockIdx.z; batch < batches; batch += gridDim.z) {
    const float* input = x + batch * inputs * channels + c;
    float* output = y + batch * length * channels + c;
    for (int64_t block = blockIdx.y; block < row_blocks; block += gridDim.y) {
      const int64_t t0 = block * kRows;
      const int rows = static_cast<int>(min(static_cast<int64_t>(kRows), length - t0));
      float acc[kRows] = {};
      // A window of inputs slides through registers: one new load per tap. In the last block it reaches past
      // the inputs.
      const auto load = [&](int64_t t) { return t < inputs ? input[t * channels] : 0.f; };
      float window[kRows];
      for (int i = 0; i < kRows; ++i) window[i] = load(t0 + i);
      for (int64_t j = 0; j < num_taps; ++j) {
        const float tap = taps[j * channels + c];
#pragma unroll
        for (int i = 0; i < kRows; ++i) acc[i] += tap * window[i];
#pragma unroll
        for (int i = 0; i + 1 < kRows; ++i) window[i] = window[i + 1];
        window[kRows - 1] = load(t0 + j + kRows);
      }
      for (int i = 0; i < rows; ++i) output[(t0 + i) * channels] = acc[i];
    }
  }
}

}  // namespace

void fir_forward(const float* x, const float* taps, float* y, int64_t batch, int64_t length, int64_t num_taps,
                 int64_t channels, void* stream) {
  if (batch == 0 || length == 0 || channels == 0) return;
  const int64_t row_blocks = (length + kRows - 1) / kRows;
  const dim3 grid(static_cast<unsigned>((channels + kThreads - 1) / kThreads),
                  static_cast<unsigned>(min(row_blocks, kMaxGridYZ)),
                  static_cast<unsigned>(min(batch, kMaxGridYZ)));
  launch(fir_kernel, grid, dim3(kThreads), 0, static_cast<cudaStream_t>(stream), x, taps, y, batch, length,
         num_taps, channels, row_blocks);
  check_launch("fir_forward");
}

}  // namespace focus::kernels::cuda
