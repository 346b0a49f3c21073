// The modal scan and its gradient.
#pragma once

#include "focus/kernels/modal_scan.h"
#include "lanes.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

// N is the number of modes known at compile time, or 0 for any number up to kMaxModes.
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
    // Without poles_rest: these states differ from the forward pass's by rounding, within a block of
    // kScanBlock steps.
    for (int i = 0; i < steps; ++i) {
      const V p = load<V>(a.p + (t0 + i) * stride + c);
      V* before = history + i * modes;
      // The forward pass adds poles_rest too: these states differ from its by rounding, and so do the
      // gradients.
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
    args.num_modes == 16 ? modal_gradient_block<T, Lanes<T>, 16>(args, c)
                         : modal_gradient_block<T, Lanes<T>, 0>(args, c);
  }
  for (; c < end; ++c) modal_gradient_block<T, Single<T>, 0>(args, c);
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
