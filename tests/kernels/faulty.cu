// One small kernel with a choice of mistakes. Plain __shared__ stands here beside SHARED, as both are to be
// watched.
#include "faulty.h"
#include "ptx.h"

namespace {
constexpr int kThreads = 64;
constexpr unsigned kAllLanes = 0xffffffffu;

__global__ void faulty_kernel(Fault fault, const float* in, float* out, float* total) {
  SHARED(tile, float[kThreads]);
  __shared__ float plain[kThreads];
  const int t = threadIdx.x, i = blockIdx.x * kThreads + t;
  if (fault == Fault::kExitBeforeBarrier && t >= 50) return;
  if (fault != Fault::kUninitialised || t != 63) copy_async(&tile[t], &in[i]);
  if (fault != Fault::kMissingCopyWait) copy_async_wait();
  float* last = tile + t;
  if (fault == Fault::kWritePastShared && t == 63) last[1] = 1.f;
  if (fault == Fault::kDivergentBarrier && t < 32)
    __syncthreads();
  else if (fault != Fault::kMissingBarrier)
    __syncthreads();
  float right = tile[(t + 1) % kThreads];
  if (fault == Fault::kOverwriteWhileRead) tile[t] = right;

  plain[t ^ 1] = right;
  if (fault != Fault::kMissingWarpBarrier) __syncwarp();
  right = plain[t];
  if (fault == Fault::kExitBeforeShuffle && t == 40) return;
  right = __shfl_xor_sync(fault == Fault::kLaneNotInMask ? 0x00ffu : kAllLanes, right, 1);

  if (fault == Fault::kReadPastBuffer) right = in[i + 1];
  if (fault == Fault::kMisaligned && t < 16) right = reinterpret_cast<const float4*>(in + i + 1)->x;
  if (fault == Fault::kBlocksAddWithoutAtomics && t == 0) total[0] += 1.f;
  if (fault != Fault::kBlocksAddWithoutAtomics && t == 0) atomicAdd(total, 1.f);
  out[i] = in[i] + right;
}
}  // namespace

void faulty(Fault fault, const float* in, float* out, float* total) {
  const dim3 grid(256 / kThreads, fault == Fault::kGridBeyondTheLimits ? 65536 : 1);
  launch(faulty_kernel, grid, dim3(kThreads), 0, nullptr, fault, in, out, total);
  focus::kernels::cuda::check_launch("faulty");
}
