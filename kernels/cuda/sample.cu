// A block takes a row. A token's rank is the number of those before it, counted by one thread; one warp then
// adds up the masses in that order, and one lane searches the sums.
#include "focus/kernels/cuda/sample.h"

#include "pack.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kThreads = 512, kEach = static_cast<int>(kMaxTokens / 32);
constexpr unsigned kAllLanes = 0xffffffffu;

// The first of `count` rising sums that passes; at least one does, or the last is taken.
template <class F>
__device__ int first_that(int count, F&& passes) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (passes(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

template <class T>
__global__ void __launch_bounds__(kThreads) sample_kernel(Sample<T> a) {
  SHARED(logit, float[kMaxTokens]);
  SHARED(token, int[kMaxTokens]);   // by rank
  SHARED(sum, double[kMaxTokens]);  // of the masses up to a rank
  const int tokens = static_cast<int>(a.tokens), kept = static_cast<int>(a.top_k), lane = threadIdx.x;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    for (int i = threadIdx.x; i < tokens; i += kThreads) {
      const float x = widen(a.logits[row * a.logits_stride + i]);
      logit[i] = x == x ? x : -INFINITY;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < tokens; i += kThreads) {
      const float mine = logit[i];
      int rank = 0;
      for (int j = 0; j < tokens; ++j) rank += logit[j] > mine || (logit[j] == mine && j < i);
      token[rank] = i;
    }
    __syncthreads();
    if (a.temperature == 0.0) {
      if (lane == 0) a.chosen[row] = token[0];
    } else if (lane < 32) {
      // Each lane sums kEach neighbouring ranks; the sums of the lanes before it come on top.
      const float largest = logit[token[0]];
      const int begin = lane * kEach, end = min(kept, begin + kEach);
      double mine = 0.0;
      for (int i = begin; i < end; ++i) {
        const float x = logit[token[i]];
        mine += x == largest ? 1.0 : exp((static_cast<double>(x) - largest) / a.temperature);
        sum[i] = mine;
      }
      double before = 0.0;
      for (int i = 0; i < 31; ++i) {
        const double other = __shfl_sync(kAllLanes, mine, i);
        if (i < lane) before += other;
      }
      for (int i = begin; i < end; ++i) sum[i] += before;
      __syncwarp();
      if (lane == 0) {
        const double enough = a.top_p * sum[kept - 1];
        const int last = first_that(kept, [&](int i) { return sum[i] >= enough; });
        const double target = static_cast<double>(a.uniform[row]) * sum[last];
        a.chosen[row] = token[first_that(last + 1, [&](int i) { return sum[i] > target; })];
      }
    }
    __syncthreads();
  }
}

}  // namespace

template <class T>
void sample(const Sample<T>& a, void* stream) {
  if (a.rows == 0) return;
  FOCUS_CHECK(a.tokens >= 1 && a.tokens <= kMaxTokens && a.top_k >= 1 && a.top_k <= a.tokens,
              "sample: ", a.tokens, " tokens, top_k ", a.top_k);
  launch(sample_kernel<T>, dim3(row_blocks(a.rows)), dim3(kThreads), 0, static_cast<cudaStream_t>(stream), a);
  check_launch("sample");
}

template void sample(const Sample<float>&, void*);
template void sample(const Sample<Bf16>&, void*);

}  // namespace focus::kernels::cuda
