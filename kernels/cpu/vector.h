// Register-wide arithmetic for kernels that hold a tile of sums (the kernels on lanes.h only stream, and take
// two or four registers at a time). Compiled once per instruction set; lanes.h says why nothing from the
// standard library is used.
#pragma once

#include "focus/kernels/linear.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

// A tile of kTileKeys x kTileRows sums, their operands included, must fit the registers of the instruction
// set.
#if defined(__AVX512F__)
constexpr int kBytes = 64, kTileKeys = 4;
#elif defined(__AVX__)
constexpr int kBytes = 32, kTileKeys = 2;
#else
constexpr int kBytes = 16, kTileKeys = 2;
#endif
constexpr int kTileRows = 4;
typedef float Floats __attribute__((vector_size(kBytes)));
typedef int32_t Ints __attribute__((vector_size(kBytes)));
typedef uint32_t Words __attribute__((vector_size(kBytes)));
constexpr int kFloats = kBytes / 4;

template <class V>
inline V load_bytes(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}
/// x in every lane. Nothing is added for x - 0, where x + 0 would make 0 of -0.
inline Floats broadcast(float x) { return x - Floats{}; }
inline float widen_one(Bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}
inline float widen_one(float value) { return value; }
inline void write(float value, float* to) { *to = value; }
inline void write(float value, Bf16* to) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  // To the nearest, ties to even; a NaN keeps its top bits and must not round into infinity.
  *to = static_cast<Bf16>(value != value ? (bits >> 16) | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float sum_lanes(Floats v) {
  float lanes[kFloats];
  __builtin_memcpy(lanes, &v, sizeof v);
  for (int half = kFloats / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

// What one step of a loop reads: one register of fp32 values, or one register that holds the even and the odd
// bf16 values of its 32-bit words. Shifting them apart is cheaper than interleaving them; whatever they are
// multiplied with is packed to match. A T holds `inputs_in` of them.
template <class T>
struct Step;
template <>
struct Step<float> {
  static constexpr int parts = 1, inputs = kFloats, inputs_in = 1;
  static void read(const float* from, Floats* out) { out[0] = load_bytes<Floats>(from); }
};
template <>
struct Step<Bf16> {
  static constexpr int parts = 2, inputs = 2 * kFloats, inputs_in = 1;
  static void read(const Bf16* from, Floats* out) {
    const Words words = load_bytes<Words>(from);
    out[0] = reinterpret_cast<Floats>(words << 16);
    out[1] = reinterpret_cast<Floats>(words & 0xffff0000u);
  }
};
/// Where value i of a step stands after packing.
template <class T>
constexpr int packed_index(int i) {
  return i % Step<T>::parts * kFloats + i / Step<T>::parts;
}

/// sums[o][m] += <w[o], x[m]> over one step.
template <class W, int O, int M>
inline void dot_step(const W* const (&w)[O], const float* const (&x)[M], int64_t w_at, int64_t x_at,
                     Floats (&sums)[O][M]) {
  using S = Step<W>;
  Floats weight[O][S::parts];
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o) S::read(w[o] + w_at / S::inputs_in, weight[o]);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int part = 0; part < S::parts; ++part) {
      const Floats input = load_bytes<Floats>(x[m] + x_at + part * kFloats);
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o) sums[o][m] += weight[o][part] * input;
    }
  }
}

/// The lane-wise products of O rows of w and M packed rows of x, over `inputs` values: their sum over lanes
/// is the product. `from_memory`: the rows of w are long and in no cache. They are then asked for 1 KiB
/// ahead, since a processor that looks ahead by itself stops where a page ends.
template <class W, int O, int M, bool from_memory = false>
inline void dot_tile(const W* const (&w)[O], const float* const (&x)[M], int64_t inputs,
                     Floats (&sums)[O][M]) {
  using S = Step<W>;
  const int64_t whole = inputs / S::inputs * S::inputs;
#pragma GCC unroll 8
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) sums[o][m] = Floats{};
  }
  for (int64_t i = 0; i < whole; i += S::inputs) {
    if constexpr (from_memory) {
#pragma GCC unroll 8
      for (int o = 0; o < O; ++o)
        __builtin_prefetch(reinterpret_cast<const char*>(w[o] + i / S::inputs_in) + 1024);
    }
    dot_step<W, O, M>(w, x, i, i, sums);
  }
  if (whole < inputs) {
    W tail[O][S::inputs / S::inputs_in] = {};
    const W* from[O];
    for (int o = 0; o < O; ++o) {
      for (int64_t i = whole / S::inputs_in; i < inputs / S::inputs_in; ++i)
        tail[o][i - whole / S::inputs_in] = w[o][i];
      from[o] = tail[o];
    }
    dot_step<W, O, M>(from, x, 0, whole, sums);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
