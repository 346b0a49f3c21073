// What is done to one row after the other. Compiled once per instruction set, as isa.cpp is, but without
// fused multiply-add: every processor, and LibTorch's own operations, then give the same bits.
#include "rows.h"

#include "vector.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

constexpr int kLanes = 8;
typedef float Eight __attribute__((vector_size(4 * kLanes)));
typedef uint32_t EightWords __attribute__((vector_size(4 * kLanes)));
typedef uint16_t EightHalves __attribute__((vector_size(2 * kLanes)));

inline void read_eight(const float* from, Eight& out) { __builtin_memcpy(&out, from, sizeof out); }
inline void read_eight(const Bf16* from, Eight& out) {
  EightHalves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  out = reinterpret_cast<Eight>(__builtin_convertvector(halves, EightWords) << 16);
}

}  // namespace

template <class T>
void rms_norm(const RmsNorm<T>& a) {
  const T* x = a.x;
  if (a.delta != nullptr) {
    for (int64_t i = 0; i < a.width; ++i) write(widen_one(a.x[i]) + widen_one(a.delta[i]), a.sum + i);
    x = a.sum;
  }
  Eight squares = {};  // as at::linalg_vector_norm sums them
  int64_t i = 0;
  for (; i + kLanes <= a.width; i += kLanes) {
    Eight values;
    read_eight(x + i, values);
    squares += values * values;
  }
  float total = squares[0];
  for (int lane = 1; lane < kLanes; ++lane) total += squares[lane];
  for (; i < a.width; ++i) total += widen_one(x[i]) * widen_one(x[i]);
  float inverse;
  if (a.eps_inside) {
    inverse = 1.0f / __builtin_sqrtf(total / static_cast<float>(a.width) + a.eps);
  } else {
    const auto part = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(a.width)));
    const float root = __builtin_sqrtf(total) * part;
    if (a.root != nullptr) *a.root = root;
    inverse = 1.0f / (root + a.eps);
  }
  for (i = 0; i < a.width; ++i) {
    float value = widen_one(x[i]) * inverse;
    if (a.eps_inside) {
      T rounded;
      write(value, &rounded);
      value = widen_one(rounded);
    }
    write(value * widen_one(a.scale[i]), a.y + i);
  }
}

template <class T>
void rotate(const T* from, T* to, const float* cosine, const float* sine, int64_t half) {
  // Where `from` is `to` each number is read before it is written.
#pragma GCC ivdep
  for (int64_t i = 0; i < half; ++i) {
    const float a = widen_one(from[i]), b = widen_one(from[i + half]);
    write(a * cosine[i] - b * sine[i], to + i);
    write(a * sine[i] + b * cosine[i], to + i + half);
  }
}

template void rms_norm(const RmsNorm<float>&);
template void rms_norm(const RmsNorm<Bf16>&);
template void rotate(const float*, float*, const float*, const float*, int64_t);
template void rotate(const Bf16*, Bf16*, const float*, const float*, int64_t);

}  // namespace focus::kernels::FOCUS_ISA
