// Bodies of the CPU kernels, compiled once per instruction set into namespace FOCUS_ISA. Nothing from the standard library is used here:
// an inline function compiled with wide instructions could otherwise be picked by the linker for every caller.
#pragma once

#include "focus/kernels/cpu.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

template <class T>
struct Lanes {
  typedef T Vec __attribute__((vector_size(64)));
  static constexpr int count = 64 / sizeof(T);
};
/// One channel at a time, for the channels left over by the vector loop.
template <class T>
struct Single {
  typedef T Vec;
  static constexpr int count = 1;
};

template <class V, class T>
inline V load(const T* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}
template <class V, class T>
inline void store(T* to, V value) {
  __builtin_memcpy(to, &value, sizeof(V));
}
template <class V>
inline V zero() {
  V value{};
  return value;
}

template <class T, class L>
void fir_block(const FirForward<T>& a, int64_t c) {
  using V = typename L::Vec;
  constexpr int kRows = 8;
  const int64_t stride = a.channels;
  int64_t t = 0;
  for (; t + kRows <= a.length; t += kRows) {
    V acc[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) acc[i] = zero<V>();
    const T* x = a.x + t * stride + c;
    const T* w = a.taps + c;
    for (int64_t j = 0; j < a.num_taps; ++j, x += stride, w += stride) {
      const V tap = load<V>(w);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) acc[i] += tap * load<V>(x + i * stride);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) store(a.y + (t + i) * stride + c, acc[i]);
  }
  for (; t < a.length; ++t) {
    V acc = zero<V>();
    for (int64_t j = 0; j < a.num_taps; ++j) acc += load<V>(a.taps + j * stride + c) * load<V>(a.x + (t + j) * stride + c);
    store(a.y + t * stride + c, acc);
  }
}

template <class T, class L>
void fir_taps_block(const FirTapsGradient<T>& a, int64_t c) {
  using V = typename L::Vec;
  constexpr int kTaps = 8;
  constexpr int64_t kRun = 1024;  // partial sums keep fp32 accurate over long sequences
  const int64_t stride = a.channels;
  for (int64_t j = 0; j < a.num_taps; j += kTaps) {
    const int taps = static_cast<int>(a.num_taps - j < kTaps ? a.num_taps - j : kTaps);
    V total[kTaps];
    for (int i = 0; i < kTaps; ++i) total[i] = zero<V>();
    for (int64_t t0 = 0; t0 < a.length; t0 += kRun) {
      const int64_t t1 = t0 + kRun < a.length ? t0 + kRun : a.length;
      V acc[kTaps];
#pragma GCC unroll 8
      for (int i = 0; i < kTaps; ++i) acc[i] = zero<V>();
      if (taps == kTaps) {
        for (int64_t t = t0; t < t1; ++t) {
          const V g = load<V>(a.dy + t * stride + c);
          const T* x = a.x + (t + j) * stride + c;
#pragma GCC unroll 8
          for (int i = 0; i < kTaps; ++i) acc[i] += g * load<V>(x + i * stride);
        }
      } else {
        for (int64_t t = t0; t < t1; ++t) {
          const V g = load<V>(a.dy + t * stride + c);
          const T* x = a.x + (t + j) * stride + c;
          for (int i = 0; i < taps; ++i) acc[i] += g * load<V>(x + i * stride);
        }
      }
      for (int i = 0; i < taps; ++i) total[i] += acc[i];
    }
    for (int i = 0; i < taps; ++i) {
      T* to = a.dtaps + (j + i) * stride + c;
      store(to, load<V>(to) + total[i]);
    }
  }
}

// N is the number of modes known at compile time, or 0 for any number up to kMaxModes.
constexpr int kMaxModes = 64;

template <class T, class L, int N>
void modal_block(const ModalScan<T>& a, int64_t c) {
  using V = typename L::Vec;
  const int modes = N > 0 ? N : static_cast<int>(a.num_modes);
  const int64_t stride = a.channels;
  constexpr int kSize = N > 0 ? N : kMaxModes;
  V s[kSize], pole[kSize], rest[kSize], res[kSize];
  for (int n = 0; n < modes; ++n) {
    s[n] = load<V>(a.initial + n * stride + c);
    pole[n] = load<V>(a.poles + n * stride + c);
    rest[n] = load<V>(a.poles_rest + n * stride + c);
    res[n] = load<V>(a.residues + n * stride + c);
  }
  for (int64_t t = 0; t < a.length; ++t) {
    if (a.saved != nullptr && t % kScanBlock == 0) {
      for (int n = 0; n < modes; ++n) store(a.saved + (t / kScanBlock * modes + n) * stride + c, s[n]);
    }
    const V p = load<V>(a.p + t * stride + c);
    V even = zero<V>(), odd = zero<V>();
#pragma GCC unroll 16
    for (int n = 0; n < modes; ++n) {
      s[n] = pole[n] * s[n] + (rest[n] * s[n] + p);
      if (n % 2 == 0) {
        even += res[n] * s[n];
      } else {
        odd += res[n] * s[n];
      }
    }
    store(a.y + t * stride + c, even + odd);
  }
  for (int n = 0; n < modes; ++n) store(a.final + n * stride + c, s[n]);
}

template <class T, class L, int N>
void modal_gradient_block(const ModalScanGradient<T>& a, int64_t c) {
  using V = typename L::Vec;
  constexpr int kSize = N > 0 ? N : kMaxModes;
  const int modes = N > 0 ? N : static_cast<int>(a.num_modes);
  const int64_t stride = a.channels;
  V pole[kSize], res[kSize], lambda[kSize], dpole[kSize], dres[kSize];
  for (int n = 0; n < modes; ++n) {
    pole[n] = load<V>(a.poles + n * stride + c);
    res[n] = load<V>(a.residues + n * stride + c);
    lambda[n] = load<V>(a.dfinal + n * stride + c);
    dpole[n] = zero<V>();
    dres[n] = zero<V>();
  }
  const int64_t blocks = (a.length + kScanBlock - 1) / kScanBlock;
  V history[(kScanBlock + 1) * kSize];  // history[i]: the states before step i of this block
  for (int64_t block = blocks - 1; block >= 0; --block) {
    const int64_t t0 = block * kScanBlock;
    const int steps = static_cast<int>(a.length - t0 < kScanBlock ? a.length - t0 : kScanBlock);
    for (int n = 0; n < modes; ++n) history[n] = load<V>(a.saved + (block * modes + n) * stride + c);
    for (int i = 0; i < steps; ++i) {
      const V p = load<V>(a.p + (t0 + i) * stride + c);
      V* before = history + i * modes;
      // The forward pass adds poles_rest too: these states differ from its by rounding, and so do the gradients.
      for (int n = 0; n < modes; ++n) before[modes + n] = pole[n] * before[n] + p;
    }
    for (int i = steps - 1; i >= 0; --i) {
      const V g = load<V>(a.dy + (t0 + i) * stride + c);
      const V* before = history + i * modes;
      V sum = zero<V>();
      // lambda holds dL/ds_n[t] carried back from step t+1 (dfinal at the end).
      for (int n = 0; n < modes; ++n) {
        const V l = lambda[n] + res[n] * g;
        dres[n] += g * before[modes + n];
        dpole[n] += l * before[n];
        sum += l;
        lambda[n] = pole[n] * l;
      }
      store(a.dp + (t0 + i) * stride + c, sum);
    }
  }
  for (int n = 0; n < modes; ++n) {
    T* to = a.dpoles + n * stride + c;
    store(to, load<V>(to) + dpole[n]);
    to = a.dresidues + n * stride + c;
    store(to, load<V>(to) + dres[n]);
    store(a.dinitial + n * stride + c, lambda[n]);
  }
}

template <class T>
void fir_forward(const FirForward<T>& args, int64_t begin, int64_t end) {
  int64_t c = begin;
  for (; c + Lanes<T>::count <= end; c += Lanes<T>::count) fir_block<T, Lanes<T>>(args, c);
  for (; c < end; ++c) fir_block<T, Single<T>>(args, c);
}
template <class T>
void fir_taps_gradient(const FirTapsGradient<T>& args, int64_t begin, int64_t end) {
  int64_t c = begin;
  for (; c + Lanes<T>::count <= end; c += Lanes<T>::count) fir_taps_block<T, Lanes<T>>(args, c);
  for (; c < end; ++c) fir_taps_block<T, Single<T>>(args, c);
}
template <class T>
void modal_scan(const ModalScan<T>& args, int64_t begin, int64_t end) {
  int64_t c = begin;
  for (; c + Lanes<T>::count <= end; c += Lanes<T>::count) {
    args.num_modes == 16 ? modal_block<T, Lanes<T>, 16>(args, c) : modal_block<T, Lanes<T>, 0>(args, c);
  }
  for (; c < end; ++c) modal_block<T, Single<T>, 0>(args, c);
}
template <class T>
void modal_scan_gradient(const ModalScanGradient<T>& args, int64_t begin, int64_t end) {
  int64_t c = begin;
  for (; c + Lanes<T>::count <= end; c += Lanes<T>::count) {
    args.num_modes == 16 ? modal_gradient_block<T, Lanes<T>, 16>(args, c) : modal_gradient_block<T, Lanes<T>, 0>(args, c);
  }
  for (; c < end; ++c) modal_gradient_block<T, Single<T>, 0>(args, c);
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
