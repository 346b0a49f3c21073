#include "focus/kernels/cuda/hyena.h"

#include "walk.h"

namespace focus::kernels::cuda {
namespace {

template <class T>
Walk<T> walk_of(const HyenaInput<T>& in) {
  Walk<T> a{};
  a.x = in.z, a.x_batch = in.z_batch, a.x_row = in.z_row, a.before = in.before, a.last = in.last;
  a.input_taps = in.taps, a.batch = in.batch, a.length = in.length, a.channels = in.channels;
  a.y_batch = in.length * in.channels;
  a.stretch_rows = kScanStretch, a.stretches = scan_stretches(in.length);
  return a;
}

// One row, as while decoding: what counts is how long its loads wait, so the rows that the filter looks back
// to are shared out to the warps, which read theirs at once and move them on. A thread has columns c and c
// + 1.
constexpr int kStepWarps = 8;
template <class T>
__global__ void __launch_bounds__(32 * kStepWarps) step_kernel(const __grid_constant__ Walk<T> a) {
  SHARED(parts, float[kStepWarps][kColumns]);
  const int c = static_cast<int>(threadIdx.x) % 32 * 2, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t b = blockIdx.x / a.tiles, channel = blockIdx.x % a.tiles * kColumns + c,
                back = a.num_taps - 1;
  const bool low = channel < a.channels, high = channel + 1 < a.channels;
  const auto read = [&](const T* from, int64_t at) {
    if (from == nullptr || !low) return make_float2(0.f, 0.f);
    if (a.packs) return load_pair(from + at);
    return make_float2(widen(from[at]), high ? widen(from[at + 1]) : 0.f);
  };
  const auto write = [&](T* to, int64_t at, float2 x) {
    if (a.packs && low) {
      store_pair(to + at, x.x, x.y);
    } else {
      if (low) to[at] = narrow<T>(x.x);
      if (high) to[at + 1] = narrow<T>(x.y);
    }
  };
  const auto by_tap = [&](int64_t j, float2 x, float2 to) {
    const int64_t last = a.channels - 1;
    const auto tap = [&](int64_t of) {
      return widen(a.taps[min(of, last) / a.run * a.filter_stride + j * a.tap_stride]);
    };
    return make_float2(fmaf(tap(channel), x.x, to.x), fmaf(tap(channel + 1), x.y, to.y));
  };
  float2 sum = {0.f, 0.f};
#pragma unroll 8
  for (int64_t k = warp; k < back; k += kStepWarps) {
    const float2 p = read(a.carried, b * a.carried_batch + k * a.channels + channel);
    if (k > 0) write(a.new_carried, (b * back + k - 1) * a.channels + channel, p);
    sum = by_tap(k, p, sum);
  }
  float2 x2 = {0.f, 0.f};
  if (warp == 0) {
    float mixed[6] = {};  // x2, x1, v of c, then of c + 1
    for (int row = 0; row < 3; ++row) {
      for (int i = 0; i < 6; ++i) {
        const int64_t at = 3 * channel + i;
        if (at >= 3 * a.channels) break;
        const T* const z = row == 2              ? a.x + b * a.x_batch
                           : a.before != nullptr ? a.before + (b * 2 + row) * 3 * a.channels
                                                 : nullptr;
        const T x = z != nullptr ? z[at] : T{};
        mixed[i] = fmaf(widen(a.input_taps[3 * at + row]), widen(x), mixed[i]);
        if (row > 0) a.last[(b * 2 + row - 1) * 3 * a.channels + at] = x;
      }
    }
    for (float& x : mixed) x = rounded<T>(x);
    x2 = make_float2(mixed[0], mixed[3]);
    const float2 p = make_float2(rounded<T>(mixed[1] * mixed[2]), rounded<T>(mixed[4] * mixed[5]));
    if (back > 0) write(a.new_carried, (b * back + back - 1) * a.channels + channel, p);
    const float2 skip = read(a.skip, channel);
    sum = by_tap(back, p, sum);
    sum = make_float2(fmaf(skip.x, p.x, sum.x), fmaf(skip.y, p.y, sum.y));
  }
  parts[warp][c] = sum.x, parts[warp][c + 1] = sum.y;
  __syncthreads();
  if (warp > 0) return;
  for (int w = 1; w < kStepWarps; ++w) sum.x += parts[w][c], sum.y += parts[w][c + 1];
  write(a.y, b * a.channels + channel, make_float2(x2.x * rounded<T>(sum.x), x2.y * rounded<T>(sum.y)));
}

}  // namespace

template <class T>
void hyena_fir(const HyenaInput<T>& in, const InnerFir<T>& inner, T* y, void* stream) {
  Walk<T> a = walk_of(in);
  set_filter(a, inner.filter);
  a.y = y, a.skip = inner.skip, a.carried = inner.before, a.new_carried = inner.last;
  a.carried_batch = (a.num_taps - 1) * a.channels;
  if (a.num_taps < 1 || a.num_taps > kMaxInnerTaps) fail<InternalError>("hyena_fir: ", a.num_taps, " taps");
  if (a.length == 1) {
    a.tiles = div_up(a.channels, kColumns);
    a.packs = packs_fit<T>({a.channels}, a.carried, a.new_carried, a.skip, a.y);
    launch(step_kernel<T>, dim3(static_cast<unsigned>(a.batch * a.tiles)), dim3(32 * kStepWarps), 0,
           static_cast<cudaStream_t>(stream), a);
    return check_launch("hyena_fir");
  }
  if constexpr (sizeof(T) == 2) {
    if (on_tensor_cores(inner.filter)) return walk_filter<T, Inner::toeplitz, true>(a, stream);
  }
  a.num_taps <= kShortTaps ? walk_filter<T, Inner::short_fir, true>(a, stream)
                           : walk_filter<T, Inner::fir, true>(a, stream);
}

template <class T>
void hyena_scan(const HyenaInput<T>& in, const Modes& modes, const T* skip, T* y, void* stream) {
  Walk<T> a = walk_of(in);
  a.y = y, a.skip = skip;
  walk_modes<T, true>(a, modes, stream);
}

template <class T>
void hyena_split(const HyenaInput<T>& in, const T* dy, T* p, int64_t p_batch, T* dinner, int64_t dinner_batch,
                 void* stream) {
  Walk<T> a = walk_of(in);
  a.dy = dy, a.p = p, a.p_batch = p_batch, a.y = dinner, a.y_batch = dinner_batch;
  walk<T, Inner::split, true>(a, stream);
}

template <class T>
void hyena_gradient(const HyenaInput<T>& in, const T* dy, const T* filtered, const T* dp, int64_t dp_batch,
                    T* dmixed, int64_t dmixed_batch, void* stream) {
  Walk<T> a = walk_of(in);
  a.dy = dy, a.filtered = filtered, a.dp = dp, a.dp_batch = dp_batch, a.y = dmixed, a.y_batch = dmixed_batch;
  walk<T, Inner::gradient, true>(a, stream);
}

#define FOCUS_INSTANTIATE(T)                                                                             \
  template void hyena_fir(const HyenaInput<T>&, const InnerFir<T>&, T*, void*);                          \
  template void hyena_scan(const HyenaInput<T>&, const Modes&, const T*, T*, void*);                     \
  template void hyena_split(const HyenaInput<T>&, const T*, T*, int64_t, T*, int64_t, void*);            \
  template void hyena_gradient(const HyenaInput<T>&, const T*, const T*, const T*, int64_t, T*, int64_t, \
                               void*);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(Bf16)
#undef FOCUS_INSTANTIATE

}  // namespace focus::kernels::cuda
