// Blocks that walk along a sequence. A block has kColumns channels and a stretch of rows, which it goes
// through kTile rows at a time: while a tile is worked on, the next one is copied to shared memory. What a
// tile needs of earlier tiles lies in shared memory (values of p) or in registers (modes), so that every row
// comes from memory once; a filter's stretch starts early, by the rows that its first outputs look back to.
//
// A tile is made from z (what a Hyena mixer gets: 3-tap filter, split into x2, x1, v, p = x1 v), or is p
// itself. Legend: L rows, C channels, K taps, N modes.
#pragma once

#include "ptx.h"
#include "walk_arguments.h"

namespace focus::kernels::cuda {

template <class T, Inner kInner, bool kHyena>
__global__ void __launch_bounds__(WalkShape<T, kInner, kHyena>::kThreads,
                                  WalkShape<T, kInner, kHyena>::kBlocksAtOnce)
    walk_kernel(const __grid_constant__ Walk<T> a) {
  using S = WalkShape<T, kInner, kHyena>;
  constexpr int kThreads = S::kThreads, kWarps = kThreads / 32, kRows = kTile / kWarps, kPitch = S::kPitch,
                kRing = S::kKept * kTile;
  SHARED_DYNAMIC(memory, T);
  T* const ring = memory + 2 * S::kIncoming;  // p of the last kKept tiles; gradient: x1
  T* const out = ring + kRing * kPitch;       // x2, then the outputs; gradient: v

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t block = blockIdx.x, stretch = block / a.tiles % a.launched, b = block / a.tiles / a.launched,
                c0 = block % a.tiles * kColumns;
  const int columns = static_cast<int>(min(int64_t{kColumns}, a.channels - c0));
  const int64_t first = stretch * a.stretch_rows, end = min(first + a.stretch_rows, a.length),
                back = kIsFir<kInner> ? a.num_taps - 1 : 0,
                warm_up = (kInner == Inner::fir ? div_up(back, kTile) : S::kKept - 1) * kTile;

  const T* const x = a.x + b * a.x_batch + c0 * (kHyena ? 3 : 1);
  const auto incoming = [&](int64_t tile) { return memory + tile % 2 * S::kIncoming; };
  // Copies the rows that the tile from row t0 needs; zeros where there are none.
  const auto copy_in = [&](int64_t tile, int64_t t0) {
    constexpr int kPacks = S::kRow / kPack<T>;
    const int valid = columns * (kHyena ? 3 : 1);
    T* const to = incoming(tile);
#pragma unroll 1
    for (int i = thread; i < (kTile + S::kContext) * kPacks; i += kThreads) {
      const int row = i / kPacks, column = i % kPacks * kPack<T>;
      const int64_t t = t0 - S::kContext + row;
      const T* from = nullptr;
      if (t >= 0) {
        if (t < a.length) from = x + t * a.x_row;
      } else if (kHyena && t >= -2 && a.before != nullptr) {
        from = a.before + ((b * 2 + 2 + t) * a.channels + c0) * 3;
      }
      T* const at = to + row * S::kRow + column;
      if (a.packs) {
        const bool copied = from != nullptr && column < valid;
        copy_async_or_zeros(reinterpret_cast<uint4*>(at), copied ? from + column : x, copied);
      } else {
        for (int e = 0; e < kPack<T>; ++e)
          at[e] = from != nullptr && column + e < valid ? from[column + e] : T{};
      }
    }
  };

  // What a thread keeps for the whole walk. In the first step a thread has two columns, c and c + 1.
  const int c = 2 * lane;
  SHARED(all_input_taps, float[kHyena ? 9 * kColumns : 1]);  // (column, part, tap)
  if constexpr (kHyena) {
    for (int i = thread; i < 9 * kColumns; i += kThreads)
      all_input_taps[i] = i < 9 * columns ? widen(a.input_taps[c0 * 9 + i]) : 0.f;
  }
  const auto filter = [&](int column) {  // a column beyond the last has p = 0 and any filter
    return a.taps + (c0 + min(column, columns - 1)) / a.run * a.filter_stride;
  };
  [[maybe_unused]] const auto carried = [&](int64_t t, int column) {  // p of a row before the first
    const bool there = a.carried != nullptr && t + back >= 0 && column < columns;
    return there ? widen(a.carried[b * a.carried_batch + (t + back) * a.channels + c0 + column]) : 0.f;
  };
  [[maybe_unused]] const auto skip = [&](int column) {
    return a.skip != nullptr && column < columns ? widen(a.skip[c0 + column]) : 0.f;
  };
  [[maybe_unused]] const T* filters[2];
  [[maybe_unused]] float taps[kInner == Inner::short_fir ? 2 * kShortTaps : 1];
  if constexpr (kInner == Inner::short_fir || kInner == Inner::fir) {
    for (int e = 0; e < 2; ++e) filters[e] = filter(c + e);
  }
  if constexpr (kInner == Inner::short_fir) {  // missing taps are zeros at the old end
#pragma unroll
    for (int i = 0; i < 2 * kShortTaps; ++i) {
      const int64_t j = i / 2 - (kShortTaps - a.num_taps);
      taps[i] = j >= 0 ? widen(filters[i % 2][j * a.tap_stride]) : 0.f;
    }
  }
  // The filter as 16 x 16 blocks: block d joins 16 outputs with the inputs from 128 - 16 d rows before them.
  constexpr int kBlocks = kMaxBack / 16 + 1;
  const int group = warp % 4 * 16, half = warp / 4 * 16;
  [[maybe_unused]] uint32_t toeplitz[kInner == Inner::toeplitz ? kBlocks : 1][4];
  if constexpr (kInner == Inner::toeplitz) {
    const int step = static_cast<int>(a.tap_stride), most = static_cast<int>(back);
    const T* const newest = filter(group) + back * a.tap_stride;
#pragma unroll
    for (int d = 0; d < kBlocks; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float two[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int row = lane / 4 + i % 2 * 8, column = lane % 4 * 2 + e + i / 2 * 8,
                    lag = kMaxBack - 16 * d + row - column;
          two[e] = lag >= 0 && lag <= most ? widen(newest[-lag * step]) : 0.f;
        }
        toeplitz[d][i] = narrow_pair(two[0], two[1]);
      }
    }
  }
  constexpr int kModes = kIsModes<kInner> ? kScanModes : 1;
  [[maybe_unused]] float state[kModes], pole[kModes], rest[kModes], residue[kModes];
  if constexpr (kIsModes<kInner>) {
    const int64_t before = (b * a.stretches + stretch) * a.num_modes * a.channels + c0 + thread;
    read_modes(a.log_poles, a.residues, c0 + thread, a.num_modes, 0, thread < columns, pole, rest, residue);
    const float* from = a.states + before;
#pragma unroll
    for (int n = 0; n < kModes; ++n, from += a.channels)
      state[n] = kInner == Inner::modes && n < a.num_modes && thread < columns ? *from : 0.f;
  }

  copy_in(0, first - warm_up);
  int64_t tile = 0;
  for (int64_t t0 = first - warm_up; t0 < end; t0 += kTile, ++tile) {
    copy_async_wait();
    __syncthreads();  // this tile is there; nobody still reads the one before it, nor the outputs
    if (t0 + kTile < end) copy_in(tile + 1, t0 + kTile);
    const T* const in = incoming(tile);
    const int slot = static_cast<int>(tile % S::kKept) * kTile;

    // Step 1: p, and x2.
    if constexpr (kHyena) {
      float input_taps[18], older[6], old[6];  // read again for each tile: registers are short
#pragma unroll
      for (int i = 0; i < 18; i += 2) {
        const float2 two = load_pair(all_input_taps + 9 * c + i);
        input_taps[i] = two.x, input_taps[i + 1] = two.y;
      }
      const auto read = [&](int row, float(&to)[6]) {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
          const float2 pair = load_pair(in + row * S::kRow + 3 * c + 2 * i);
          to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
        }
      };
      read(warp * kRows, older);
      read(warp * kRows + 1, old);
#pragma unroll 4
      for (int i = 0; i < kRows; ++i) {
        const int row = warp * kRows + i;
        const int64_t t = t0 + row;
        float now[6], mixed[6];
        read(row + 2, now);
#pragma unroll
        for (int m = 0; m < 6; ++m) {
          mixed[m] = rounded<T>(fmaf(input_taps[3 * m + 2], now[m],
                                     fmaf(input_taps[3 * m + 1], old[m], input_taps[3 * m] * older[m])));
          older[m] = old[m], old[m] = now[m];
        }
        T* const p = ring + (slot + row) * kPitch + c;
        if constexpr (kInner == Inner::gradient) {
          store_pair(p, mixed[1], mixed[4]);
          store_pair(out + row * kPitch + c, mixed[2], mixed[5]);
        } else {
          if (kIsFir<kInner> && t < 0)
            store_pair(p, carried(t, c), carried(t, c + 1));
          else
            store_pair(p, mixed[1] * mixed[2], mixed[4] * mixed[5]);
          if constexpr (kInner != Inner::mode_ends) store_pair(out + row * kPitch + c, mixed[0], mixed[3]);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int row = warp * kRows + i;
        const int64_t t = t0 + row;
        const float2 now = load_pair(in + row * S::kRow + c);
        T* const p = ring + (slot + row) * kPitch + c;
        if (kIsFir<kInner> && t < 0)
          store_pair(p, carried(t, c), carried(t, c + 1));
        else
          store_pair(p, now.x, now.y);
      }
    }
    __syncthreads();

    // The chunk's last rows are what the next chunk starts with.
    if (kIsFir<kInner> && a.new_carried != nullptr && t0 + kTile > a.length - back) {
#pragma unroll 1
      for (int i = thread; i < kTile * kColumns; i += kThreads) {
        const int64_t t = t0 + i / kColumns, to = t - (a.length - back);
        if (i % kColumns < columns && to >= 0 && t < a.length && (t >= first || first == 0))
          a.new_carried[(b * back + to) * a.channels + c0 + i % kColumns] =
              ring[(slot + i / kColumns) * kPitch + i % kColumns];
      }
    }
    if (t0 < first) continue;
    if (kHyena && kInner != Inner::mode_ends && a.last != nullptr && end == a.length && t0 + kTile >= end) {
#pragma unroll 1
      for (int i = thread; i < 2 * 3 * columns; i += kThreads) {
        const int row = i / (3 * columns), column = i % (3 * columns);
        a.last[((b * 2 + row) * a.channels + c0) * 3 + column] = in[(a.length - t0 + row) * S::kRow + column];
      }
    }

    // Step 2: the outputs of this tile, in the place of x2.
    [[maybe_unused]] const auto put = [&](int row, int column, float low, float high, float skip_low,
                                          float skip_high) {
      const int lagged = slot + row - static_cast<int>(a.skip_lag);
      const float2 p = load_pair(ring + (lagged < 0 ? lagged + kRing : lagged) * kPitch + column);
      T* const to = out + row * kPitch + column;
      low = fmaf(skip_low, p.x, low), high = fmaf(skip_high, p.y, high);
      if constexpr (kHyena) {
        const float2 x2 = load_pair(to);
        low = x2.x * rounded<T>(low), high = x2.y * rounded<T>(high);
      }
      store_pair(to, low, high);
    };
    if constexpr (kInner == Inner::short_fir || kInner == Inner::fir) {
      [[maybe_unused]] constexpr int kUnrolled = kInner == Inner::short_fir ? kShortTaps : 1;
      const int taps_walked = kInner == Inner::short_fir ? kShortTaps : static_cast<int>(a.num_taps);
      const auto row_of_p = [&](int row) {
        const int at = slot + row;
        return load_pair(ring + (at < 0 ? at + kRing : at) * kPitch + c);
      };
      float2 sum[kRows] = {}, window[kRows];
      const int oldest = warp * kRows - (taps_walked - 1);
#pragma unroll
      for (int i = 0; i + 1 < kRows; ++i) window[i] = row_of_p(oldest + i);
#pragma unroll kUnrolled
      for (int j = 0; j < taps_walked; ++j) {
        window[kRows - 1] = row_of_p(oldest + j + kRows - 1);
        float low, high;
        if constexpr (kInner == Inner::short_fir)
          low = taps[2 * j], high = taps[2 * j + 1];
        else
          low = widen(filters[0][j * a.tap_stride]), high = widen(filters[1][j * a.tap_stride]);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          sum[i].x = fmaf(low, window[i].x, sum[i].x);
          sum[i].y = fmaf(high, window[i].y, sum[i].y);
        }
#pragma unroll
        for (int i = 0; i + 1 < kRows; ++i) window[i] = window[i + 1];
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) put(warp * kRows + i, c, sum[i].x, sum[i].y, skip(c), skip(c + 1));
    } else if constexpr (kInner == Inner::toeplitz) {
      float sum[2][4] = {};
#pragma unroll
      for (int d = 0; d < kBlocks; ++d) {
        const int at = slot + half - kMaxBack + 16 * d, from = (at < 0 ? at + kRing : at) + lane % 16;
        uint32_t p[4];  // 16 rows x 16 columns
        load_matrices<true>(p, reinterpret_cast<const uint4*>(ring + from * kPitch + group + lane / 16 * 8));
        mma_m16n8k16(sum[0], toeplitz[d], p[0], p[1]);
        mma_m16n8k16(sum[1], toeplitz[d], p[2], p[3]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = group + i / 2 * 8 + lane % 4 * 2, row = half + i % 2 * 8 + lane / 4;
        put(row, column, sum[i / 2][i % 2 * 2], sum[i / 2][i % 2 * 2 + 1], skip(column), skip(column + 1));
      }
    } else if constexpr (kIsModes<kInner>) {
      const int rows = static_cast<int>(min(int64_t{kTile}, end - t0));
      const float skip_here = skip(thread);
#pragma unroll 1
      for (int row = 0; row < rows; ++row) {
        const float p = widen(ring[row * kPitch + thread]);
        float even = 0.f, odd = 0.f;
#pragma unroll
        for (int n = 0; n < kModes; ++n) {
          state[n] = fmaf(pole[n], state[n], fmaf(rest[n], state[n], p));
          if constexpr (kInner == Inner::modes)
            (n % 2 == 0 ? even : odd) = fmaf(residue[n], state[n], n % 2 == 0 ? even : odd);
        }
        if constexpr (kInner == Inner::modes) {
          T* const to = out + row * kPitch + thread;
          float y = fmaf(skip_here, p, even + odd);
          if constexpr (kHyena) y = widen(*to) * rounded<T>(y);
          *to = narrow<T>(y);
        }
      }
      if constexpr (kInner == Inner::mode_ends) continue;
    } else if constexpr (kInner == Inner::gradient) {
      // Gradients of x2, x1, v go where z was.
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int row = warp * kRows + i;
        const int64_t t = t0 + row;
        const float2 x1 = load_pair(ring + row * kPitch + c), v = load_pair(out + row * kPitch + c);
        T* const to = incoming(tile) + row * S::kRow + 3 * c;
        if (t >= end || c >= columns) continue;
        const int64_t at = t * a.channels + c0 + c, dense = b * a.length * a.channels + at;
        const auto two = [&](const T* from) {
          if (a.packs) return load_pair(from);
          return make_float2(widen(from[0]), c + 1 < columns ? widen(from[1]) : 0.f);
        };
        const float2 dy = two(a.dy + dense), filtered = two(a.filtered + dense),
                     dp = two(a.dp + b * a.dp_batch + at);
        store_pair(to, dy.x * filtered.x, dp.x * v.x);
        store_pair(to + 2, dp.x * x1.x, dy.y * filtered.y);
        store_pair(to + 4, dp.y * v.y, dp.y * x1.y);
      }
    }
    __syncthreads();

    // Step 3: to memory.
    constexpr int kOut = kInner == Inner::gradient ? 3 : 1, kPacks = kOut * kColumns / kPack<T>;
    const T* const done = kInner == Inner::gradient ? incoming(tile) : out;
    constexpr int kDonePitch = kInner == Inner::gradient ? S::kRow : kPitch;
    T* const y = a.y + b * a.y_batch + c0 * kOut;
#pragma unroll 1
    for (int i = thread; i < kTile * kPacks; i += kThreads) {
      const int row = i / kPacks, column = i % kPacks * kPack<T>;
      const int64_t t = t0 + row, at = t * a.channels * kOut + column;
      if (t >= end || column >= columns * kOut) continue;
      if (a.packs) {
        const T* const from = done + row * kDonePitch + column;
        if constexpr (kInner == Inner::split) {
          constexpr int N = kPack<T>;
          float dx2[N], dy[N];
          load<N>(from, dx2);
          load<N>(a.dy + b * a.length * a.channels + c0 + at, dy);
          uint32_t words[4];
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            if constexpr (N == 4)
              words[k] = __float_as_uint(dx2[k] * dy[k]);
            else
              words[k] = narrow_pair(dx2[2 * k] * dy[2 * k], dx2[2 * k + 1] * dy[2 * k + 1]);
          }
          store_16_bytes(y + at, make_uint4(words[0], words[1], words[2], words[3]));
          *reinterpret_cast<uint4*>(a.p + b * a.p_batch + c0 + at) =
              *reinterpret_cast<const uint4*>(ring + row * kPitch + column);
        } else {
          *reinterpret_cast<uint4*>(y + at) = *reinterpret_cast<const uint4*>(from);
        }
      } else {
#pragma unroll 1
        for (int e = 0; e < kPack<T> && column + e < columns * kOut; ++e) {
          T made = done[row * kDonePitch + column + e];
          if constexpr (kInner == Inner::split) {
            made = narrow<T>(widen(made) * widen(a.dy[b * a.length * a.channels + c0 + at + e]));
            a.p[b * a.p_batch + c0 + at + e] = ring[row * kPitch + column + e];
          }
          y[at + e] = made;
        }
      }
    }
  }
  if constexpr (kIsModes<kInner>) {
    if (thread >= columns || (kInner == Inner::modes && end < a.length)) return;
    float* to =
        (kInner == Inner::mode_ends ? a.states + (b * a.stretches + stretch + 1) * a.num_modes * a.channels
                                    : a.final + b * a.num_modes * a.channels) +
        c0 + thread;
#pragma unroll
    for (int n = 0; n < kModes; ++n, to += a.channels) {
      if (n < a.num_modes) *to = state[n];
    }
  }
}

}  // namespace focus::kernels::cuda
