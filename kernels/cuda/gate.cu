// One pass over memory each way. Rows that lie side by side in all arrays are one long row.
#include "focus/kernels/cuda/gate.h"

#include "activation.h"
#include "pack.h"

namespace focus::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    gate_kernel(Gate act, Rows<const T> a, Rows<const T> b, Rows<T> y, int64_t rows, int64_t width) {
  const int64_t column = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (column >= width) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    float u[N], v[N];
    load(a.data + row * a.stride + column, u);
    load(b.data + row * b.stride + column, v);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] *= activate(act, u[j]).value;
    store(y.data + row * y.stride + column, v);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    gate_gradient_kernel(Gate act, Rows<const T> a, Rows<const T> b, Rows<const T> dy, Rows<T> da, Rows<T> db,
                         int64_t rows, int64_t width) {
  const int64_t column = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (column >= width) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    float u[N], v[N], g[N];
    load(a.data + row * a.stride + column, u);
    load(b.data + row * b.stride + column, v);
    load(dy.data + row * dy.stride + column, g);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const Activated f = activate(act, u[j]);
      v[j] *= g[j] * f.slope;
      g[j] *= f.value;
    }
    store(da.data + row * da.stride + column, v);
    store(db.data + row * db.stride + column, g);
  }
}

template <class T>
dim3 grid(int64_t rows, int64_t width, bool packs) {
  return {static_cast<unsigned>(div_up(width, kThreads * (packs ? kPack<T> : 1))), blocks(rows)};
}

}  // namespace

template <class T>
void gate(Gate act, Rows<const T> a, Rows<const T> b, Rows<T> y, int64_t rows, int64_t width, void* stream) {
  if (rows == 0 || width == 0) return;
  if (a.stride == width && b.stride == width && y.stride == width) width *= rows, rows = 1;
  const bool packs =
      packs_fit<T>({width, rows > 1 ? a.stride : 0, rows > 1 ? b.stride : 0, rows > 1 ? y.stride : 0}, a.data,
                   b.data, y.data);
  launch(packs ? gate_kernel<T, kPack<T>> : gate_kernel<T, 1>, grid<T>(rows, width, packs), dim3(kThreads), 0,
         static_cast<cudaStream_t>(stream), act, a, b, y, rows, width);
  check_launch("gate");
}

template <class T>
void gate_gradient(Gate act, Rows<const T> a, Rows<const T> b, Rows<const T> dy, Rows<T> da, Rows<T> db,
                   int64_t rows, int64_t width, void* stream) {
  if (rows == 0 || width == 0) return;
  if (a.stride == width && b.stride == width && dy.stride == width && da.stride == width &&
      db.stride == width)
    width *= rows, rows = 1;
  const bool packs =
      packs_fit<T>({width, rows > 1 ? a.stride : 0, rows > 1 ? b.stride : 0, rows > 1 ? dy.stride : 0,
                    rows > 1 ? da.stride : 0, rows > 1 ? db.stride : 0},
                   a.data, b.data, dy.data, da.data, db.data);
  launch(packs ? gate_gradient_kernel<T, kPack<T>> : gate_gradient_kernel<T, 1>, grid<T>(rows, width, packs),
         dim3(kThreads), 0, static_cast<cudaStream_t>(stream), act, a, b, dy, da, db, rows, width);
  check_launch("gate_gradient");
}

#define FOCUS_FOR(T)                                                                                        \
  template void gate(Gate, Rows<const T>, Rows<const T>, Rows<T>, int64_t, int64_t, void*);                 \
  template void gate_gradient(Gate, Rows<const T>, Rows<const T>, Rows<const T>, Rows<T>, Rows<T>, int64_t, \
                              int64_t, void*);
FOCUS_FOR(float)
FOCUS_FOR(Bf16)
#undef FOCUS_FOR

}  // namespace focus::kernels::cuda
