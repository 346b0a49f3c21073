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

}  // namespace

template <class T>
void hyena_fir(const HyenaInput<T>& in, const InnerFir<T>& inner, T* y, void* stream) {
  Walk<T> a = walk_of(in);
  set_filter(a, inner.filter);
  a.y = y, a.skip = inner.skip, a.carried = inner.before, a.new_carried = inner.last;
  a.carried_batch = (a.num_taps - 1) * a.channels;
  if (a.num_taps < 1 || a.num_taps > kMaxInnerTaps) fail<InternalError>("hyena_fir: ", a.num_taps, " taps");
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
void hyena_gradient(const HyenaInput<T>& in, const T* dy, const T* filtered, const T* dp, int64_t dp_batch, T* dmixed,
                    int64_t dmixed_batch, void* stream) {
  Walk<T> a = walk_of(in);
  a.dy = dy, a.filtered = filtered, a.dp = dp, a.dp_batch = dp_batch, a.y = dmixed, a.y_batch = dmixed_batch;
  walk<T, Inner::gradient, true>(a, stream);
}

#define FOCUS_INSTANTIATE(T)                                                                                       \
  template void hyena_fir(const HyenaInput<T>&, const InnerFir<T>&, T*, void*);                                    \
  template void hyena_scan(const HyenaInput<T>&, const Modes&, const T*, T*, void*);                               \
  template void hyena_split(const HyenaInput<T>&, const T*, T*, int64_t, T*, int64_t, void*);                      \
  template void hyena_gradient(const HyenaInput<T>&, const T*, const T*, const T*, int64_t, T*, int64_t, void*);
FOCUS_INSTANTIATE(float)
FOCUS_INSTANTIATE(Bf16)
#undef FOCUS_INSTANTIATE

}  // namespace focus::kernels::cuda
