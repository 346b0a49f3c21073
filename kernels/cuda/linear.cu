// A block makes 16 outputs of all rows. Its warps share the inputs between them and add their sums in shared
// memory at the end. The weights are the first operand of mma.sync and the rows of x, up to 8, the second, so
// that arithmetic costs next to nothing whatever the number of rows. An input's place inside the instruction
// is free as long as both operands agree: a lane takes eight neighbouring inputs of a row, sixteen bytes, and
// has with them its share of two instructions.
#include "focus/kernels/cuda/linear.h"

#include "activation.h"
#include "pack.h"
#include "ptx.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kWarps = 8, kOutputs = 16;
constexpr int kStepInputs = 32;  // of one load of every lane: four lanes to a row

// Eight values from input k on; zeros beyond the last. kVectors: in one access, and `inputs` is a multiple
// of 8.
template <bool kVectors>
__device__ __forceinline__ uint4 eight(const Bf16* row, int64_t k, int64_t inputs) {
  if (k >= inputs) return make_uint4(0, 0, 0, 0);
  if constexpr (kVectors) {
    return *reinterpret_cast<const uint4*>(row + k);
  } else {
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t at = k + 2 * i;
      word[i] = (at < inputs ? static_cast<uint32_t>(row[at]) : 0u) |
                (at + 1 < inputs ? static_cast<uint32_t>(row[at + 1]) : 0u) << 16;
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
  }
}
// Of a weight: nobody reads it again, so that it need not push x out of the first-level cache.
template <bool kVectors>
__device__ __forceinline__ uint4 eight_once(const Bf16* row, int64_t k, int64_t inputs) {
  if constexpr (kVectors)
    return k < inputs ? load_once(reinterpret_cast<const uint4*>(row + k)) : make_uint4(0, 0, 0, 0);
  else
    return eight<false>(row, k, inputs);
}

// kSteps: loads of each row of weights in flight.
template <int kMatrices, int kSteps, bool kVectors>
__global__ void __launch_bounds__(kWarps * 32, 3) few_rows_kernel(FewRows a) {
  SHARED(sums, float[kMatrices][kWarps][8][kOutputs + 1]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quad = lane % 4;
  const int64_t first = int64_t{blockIdx.x} * kOutputs;
  // Of outputs and rows that there are not, the last ones are computed again and left out at the end.
  const Bf16* x = a.x + min(static_cast<int64_t>(group), a.rows - 1) * a.x_stride;
  const Bf16* weight[kMatrices][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = min(first + group + 8 * i, a.outputs - 1) * a.inputs;
    weight[0][i] = a.weight + row;
    if constexpr (kMatrices == 2) weight[1][i] = a.up + row;
  }
  MmaTile tile[kMatrices];
#pragma unroll
  for (MmaTile& t : tile) t.c[0] = t.c[1] = t.c[2] = t.c[3] = 0.f;
  constexpr int64_t kChunk = kSteps * kStepInputs;
  for (int64_t start = warp * kChunk; start < a.inputs; start += kWarps * kChunk) {
    uint4 w[kSteps][kMatrices][2], v[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int64_t k = start + s * kStepInputs + quad * 8;
#pragma unroll
      for (int m = 0; m < kMatrices; ++m)
#pragma unroll
        for (int i = 0; i < 2; ++i) w[s][m][i] = eight_once<kVectors>(weight[m][i], k, a.inputs);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) v[s] = eight<kVectors>(x, start + s * kStepInputs + quad * 8, a.inputs);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        MmaTile& t = tile[m];
        const uint4 &upper = w[s][m][0], &lower = w[s][m][1];
        t.a[0] = upper.x, t.a[1] = lower.x, t.a[2] = upper.y, t.a[3] = lower.y;
        t.b[0] = v[s].x, t.b[1] = v[s].y;
        mma_m16n8k16(t);
        t.a[0] = upper.z, t.a[1] = lower.z, t.a[2] = upper.w, t.a[3] = lower.w;
        t.b[0] = v[s].z, t.b[1] = v[s].w;
        mma_m16n8k16(t);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kMatrices; ++m)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[m][warp][quad * 2 + i % 2][group + i / 2 * 8] = tile[m].c[i];
  __syncthreads();
  const int row = threadIdx.x / kOutputs, column = threadIdx.x % kOutputs;
  const int64_t output = first + column;
  if (row >= a.rows || output >= a.outputs) return;
  float y[kMatrices] = {};
#pragma unroll
  for (int m = 0; m < kMatrices; ++m)
    for (int i = 0; i < kWarps; ++i) y[m] += sums[m][i][row][column];
  if (a.bias != nullptr) y[0] += widen(a.bias[output]);
  if constexpr (kMatrices == 2) {
    if (a.up_bias != nullptr) y[1] += widen(a.up_bias[output]);
    y[0] = activate(a.act, y[0]).value * y[1];
  }
  if (a.residual != nullptr) y[0] += widen(a.residual[row * a.outputs + output]);
  a.y[row * a.outputs + output] = narrow<Bf16>(y[0]);
}

template <int kMatrices, int kSteps>
void start(const FewRows& a, void* stream) {
  const bool vectors = packs_fit<Bf16>({a.inputs, a.rows > 1 ? a.x_stride : 0}, a.x, a.weight, a.up);
  launch(vectors ? few_rows_kernel<kMatrices, kSteps, true> : few_rows_kernel<kMatrices, kSteps, false>,
         dim3(static_cast<unsigned>(div_up(a.outputs, kOutputs))), dim3(kWarps * 32), 0,
         static_cast<cudaStream_t>(stream), a);
  check_launch("few_rows");
}

}  // namespace

void few_rows(const FewRows& a, void* stream) {
  if (a.rows == 0 || a.outputs == 0) return;
  FOCUS_CHECK(a.rows <= kFewRows, "few_rows takes up to ", kFewRows, " rows, got ", a.rows);
  a.up != nullptr ? start<2, 2>(a, stream) : start<1, 4>(a, stream);
}

}  // namespace focus::kernels::cuda
