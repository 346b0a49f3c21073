// Launches of blocks that walk along a sequence: walk_kernel.h.
#pragma once

#include "walk_kernel.h"

namespace focus::kernels::cuda {

/// Launches a walk of `a.stretches` stretches, all but its last `left_out`.
template <class T, Inner kInner, bool kHyena>
void walk(Walk<T> a, void* stream, int64_t left_out = 0) {
  using S = WalkShape<T, kInner, kHyena>;
  a.tiles = div_up(a.channels, kColumns);
  a.packs = packs_fit<T>({a.channels, a.x_batch, a.x_row, a.y_batch, a.dp_batch, a.p_batch}, a.x, a.before,
                         a.y, a.dy, a.filtered, a.dp, a.p);
  a.launched = a.stretches - left_out;
  const int64_t blocks = a.batch * a.tiles * a.launched;
  if (blocks == 0 || a.length == 0) return;
  if (blocks > 0x7fffffff)
    fail<InternalError>("a Hyena kernel: ", blocks, " blocks are too many for one launch");
  launch(walk_kernel<T, kInner, kHyena>, dim3(static_cast<unsigned>(blocks)), dim3(S::kThreads), S::kShared,
         static_cast<cudaStream_t>(stream), a);
  check_launch("a Hyena kernel");
}

template <class T>
void set_filter(Walk<T>& a, const Taps<T>& filter) {
  a.taps = filter.taps, a.num_taps = filter.num_taps, a.tap_stride = filter.tap_stride;
  a.filter_stride = filter.filter_stride, a.run = filter.run;
}
/// Whether the filter runs on tensor cores.
template <class T>
bool on_tensor_cores(const Taps<T>& filter) {
  return sizeof(T) == 2 && filter.run % 16 == 0 && filter.num_taps >= 16 && filter.num_taps <= kMaxBack + 1;
}

/// Launches a walk that looks `back` rows back, in long stretches, since each walks so many rows more, but in
/// enough blocks for a large card. Each output is made alike in any stretch.
template <class T, Inner kInner, bool kHyena>
void walk_filter(Walk<T> a, void* stream) {
  const int64_t rows =
      max(8 * (a.num_taps - 1), div_up(a.batch * a.length * div_up(a.channels, kColumns), 1024));
  a.stretch_rows = div_up(max(rows, int64_t{256}), kTile) * kTile;
  a.stretches = div_up(a.length, a.stretch_rows);
  walk<T, kInner, kHyena>(a, stream);
}

/// states[b,k+1] += a^kScanStretch states[b,k], stretch after stretch.
void carry_states(const Modes& modes, int64_t batch, int64_t length, int64_t channels, void* stream);

/// Launches the three steps of a scan.
template <class T, bool kHyena>
void walk_modes(Walk<T> a, const Modes& modes, void* stream) {
  a.log_poles = modes.log_poles, a.residues = modes.residues, a.states = modes.states;
  a.final = modes.final, a.num_modes = modes.num_modes;
  a.stretch_rows = kScanStretch, a.stretches = scan_stretches(a.length);
  if (a.stretches > 1) {
    walk<T, Inner::mode_ends, kHyena>(a, stream, 1);
    carry_states(modes, a.batch, a.length, a.channels, stream);
  }
  walk<T, Inner::modes, kHyena>(a, stream);
}

}  // namespace focus::kernels::cuda
