// The operator of a Hyena mixer. A block of channels goes over time in tiles; filters and scans are those of
// fir.h and modal_scan.h, over rows of the block's channels alone.
#pragma once

#include <cstddef>
#include <utility>  // std::integer_sequence: a type with no code

#include "fir.h"
#include "focus/kernels/hyena.h"
#include "modal_scan.h"
#include "vector.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

constexpr int kWide = kHyenaChannels, kTriple = 3 * kWide;
constexpr int64_t kHyenaTile = kScanBlock, kMaxBack = kMaxHyenaTaps - 1;
// So many blocks go through a tile side by side: their rows of z lie beside each other in memory.
constexpr int kSideBySide = 4;
static_assert(Lanes<float>::count == kWide && kWide % kFloats == 0);

typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));
inline Floats widen(const float* from) { return load_bytes<Floats>(from); }
inline Floats widen(const Bf16* from) {
  return reinterpret_cast<Floats>(__builtin_convertvector(load_bytes<Halves>(from), Words) << 16);
}
/// To the nearest value of T, ties to even.
template <class T>
inline Floats rounded(Floats x) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else {
    const Words bits = reinterpret_cast<Words>(x);
    // A NaN keeps its top bits and must not round into infinity.
    const Words near = x != x ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    return reinterpret_cast<Floats>(near & 0xffff0000u);
  }
}
/// x is rounded.
inline void narrow(Floats x, float* to) { __builtin_memcpy(to, &x, sizeof x); }
inline void narrow(Floats x, Bf16* to) {
  const Halves halves = __builtin_convertvector(reinterpret_cast<Words>(x) >> 16, Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}
inline Floats at(const float* from) { return load_bytes<Floats>(from); }
inline void put(Floats x, float* to) { narrow(x, to); }

using Indices = std::make_integer_sequence<int, kFloats>;
/// Every third lane of three registers in a row, from lane First on.
template <int First, int... I>
inline Floats every_third(Floats a, Floats b, Floats c, std::integer_sequence<int, I...>) {
  constexpr int n = kFloats;
  const Floats ab = __builtin_shufflevector(a, b, (3 * I + First < 2 * n ? 3 * I + First : 0)...);
  return __builtin_shufflevector(ab, c, (3 * I + First < 2 * n ? I : 3 * I + First - n)...);
}
/// Register Part of three in a row in which a, b and c take turns.
template <int Part, int... I>
inline Floats in_turn(Floats a, Floats b, Floats c, std::integer_sequence<int, I...>) {
  constexpr int n = kFloats, first = Part * n;
  const Floats ab =
      __builtin_shufflevector(a, b, ((first + I) % 3 == 1 ? n + (first + I) / 3 : (first + I) / 3)...);
  return __builtin_shufflevector(ab, c, ((first + I) % 3 == 2 ? n + (first + I) / 3 : I)...);
}

/// Rows of a block: `valid` of `columns` values of each, with zeros beyond; all zeros if `from` is null.
template <class T>
inline void read_rows(const T* from, int64_t stride, int64_t rows, int valid, int columns, float* to) {
  for (int64_t row = 0; row < rows; ++row, to += columns) {
    const T* const x = from == nullptr ? nullptr : from + row * stride;
    if (x != nullptr && valid == columns) {
      for (int i = 0; i < columns; i += kFloats) put(widen(x + i), to + i);
    } else {
      for (int i = 0; i < columns; ++i) to[i] = x != nullptr && i < valid ? widen_one(x[i]) : 0.0f;
    }
  }
}
/// Values are rounded.
template <class T>
inline void write_rows(const float* from, int64_t rows, int valid, int columns, T* to, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row, from += columns, to += stride) {
    if (valid == columns) {
      for (int i = 0; i < columns; i += kFloats) narrow(at(from + i), to + i);
    } else {
      T whole[kTriple];
      for (int i = 0; i < columns; i += kFloats) narrow(at(from + i), whole + i);
      for (int i = 0; i < valid; ++i) to[i] = whole[i];
    }
  }
}
/// Rows may overlap.
inline void move_rows(const float* from, int64_t rows, int columns, float* to) {
  __builtin_memmove(to, from, static_cast<std::size_t>(rows * columns) * sizeof(float));
}

/// The filters of a block, widened.
struct HyenaFilters {
  float input_taps[3 * kTriple];
  float skip[kWide];
  float inner[3 * kMaxModes * kWide];  // taps, or poles, what rounding took off them, and residues
  int64_t channel, back, modes;
  int valid;
  bool skips;

  const float* poles() const { return inner; }
  const float* poles_rest() const { return inner + modes * kWide; }
  const float* residues() const { return inner + 2 * modes * kWide; }
};
static_assert(3 * kMaxModes >= kMaxHyenaTaps);

template <class T>
void read_filters(const Hyena<T>& in, int64_t channel, int valid, HyenaFilters& f) {
  f.channel = channel, f.valid = valid, f.modes = in.num_modes, f.skips = in.skip != nullptr;
  f.back = in.num_modes > 0 ? 0 : in.num_taps - 1;
  for (int j = 0; j < 3; ++j) {
    for (int i = 0; i < kTriple; ++i)
      f.input_taps[j * kTriple + i] =
          i < 3 * valid ? widen_one(in.input_taps[3 * (3 * channel + i) + j]) : 0.0f;
  }
  read_rows(f.skips ? in.skip + channel : nullptr, 0, 1, valid, kWide, f.skip);
  const float* const parts[3] = {in.poles, in.poles_rest, in.residues};
  for (int64_t n = 0; n < 3 * in.num_modes; ++n) {
    const float* const part = parts[n / in.num_modes] + n % in.num_modes;
    for (int i = 0; i < kWide; ++i)
      f.inner[n * kWide + i] = i < valid ? part[(channel + i) * in.num_modes] : 0.0f;
  }
  if (in.num_modes > 0) return;
  for (int i = 0; i < kWide; ++i) {
    const T* const taps = in.taps + (channel + (i < valid ? i : 0)) / in.run * in.num_taps;
    for (int64_t j = 0; j < in.num_taps; ++j)
      f.inner[j * kWide + i] = widen_one(taps[in.newest_first ? f.back - j : j]);
  }
}

/// Rows [first - 2, first + rows) of z.
template <class T>
inline void read_z(const Hyena<T>& in, const HyenaFilters& f, int64_t first, int64_t rows, float* z) {
  const int64_t stride = 3 * in.channels, column = 3 * f.channel;
  const int early = first < 2 ? static_cast<int>(2 - first) : 0;
  const T* const before = in.before != nullptr ? in.before + first * stride + column : nullptr;
  if (early > 0) read_rows(before, stride, early, 3 * f.valid, kTriple, z);
  read_rows(in.z + (first - 2 + early) * stride + column, stride, rows + 2 - early, 3 * f.valid, kTriple,
            z + early * kTriple);
}

/// What the input filter makes of z [2 + rows, kTriple]; [rows, kWide] each. All but p may be null.
struct Mixed {
  float *p, *x2, *x1, *v;
};
template <class T>
inline void mix(const float* z, int64_t rows, const float* taps, const Mixed& to) {
  for (int part = 0; part < kWide / kFloats; ++part) {
    const int from = 3 * part * kFloats, column = part * kFloats;
    for (int64_t t = 0; t < rows; ++t) {
      Floats m[3];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        Floats sum{};
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j)
          sum += at(taps + j * kTriple + from + i * kFloats) * at(z + (t + j) * kTriple + from + i * kFloats);
        m[i] = rounded<T>(sum);
      }
      const Floats x1 = every_third<1>(m[0], m[1], m[2], Indices{}),
                   v = every_third<2>(m[0], m[1], m[2], Indices{});
      const int64_t place = t * kWide + column;
      put(rounded<T>(x1 * v), to.p + place);
      if (to.x2 != nullptr) put(every_third<0>(m[0], m[1], m[2], Indices{}), to.x2 + place);
      if (to.x1 != nullptr) put(x1, to.x1 + place), put(v, to.v + place);
    }
  }
}

/// The inner filter's output over p [back + rows, kWide], `state` before and after it.
inline void inner(const HyenaFilters& f, const float* p, int64_t rows, float* state, float* y) {
  if (f.modes == 0) return fir_block<float, Lanes<float>>({p, f.inner, y, rows, f.back + 1, kWide}, 0);
  const ModalScan<float> scan = {p,     f.poles(), f.poles_rest(), f.residues(), state, y,
                                 state, nullptr,   rows,           f.modes,      kWide};
  f.modes == 16 ? modal_block<float, Lanes<float>, 16>(scan, 0)
                : modal_block<float, Lanes<float>, 0>(scan, 0);
}
/// y + skip p, rounded.
template <class T>
inline void add_skip(const HyenaFilters& f, const float* p, int64_t rows, float* y) {
  for (int64_t i = 0; i < rows * kWide; i += kFloats) {
    Floats sum = at(y + i);
    if (f.skips) sum += at(f.skip + i % kWide) * at(p + i);
    put(rounded<T>(sum), y + i);
  }
}

struct HyenaBlock {
  HyenaFilters filters;
  float state[kMaxModes * kWide];
  float p[(kMaxBack + kHyenaTile) * kWide];  // of a tile, and the rows before it
};

template <class T>
void hyena_tile(const HyenaForward<T>& a, HyenaBlock& block, int64_t first, int64_t rows) {
  const HyenaFilters& f = block.filters;
  float z[(2 + kHyenaTile) * kTriple], x2[kHyenaTile * kWide], y[kHyenaTile * kWide];
  float* const p = block.p + f.back * kWide;
  if (a.states != nullptr)
    write_rows(block.state, f.modes, f.valid, kWide,
               a.states + first / kHyenaTile * f.modes * a.in.channels + f.channel, a.in.channels);
  read_z(a.in, f, first, rows, z);
  mix<T>(z, rows, f.input_taps, {p, x2, nullptr, nullptr});
  inner(f, block.p, rows, block.state, y);
  add_skip<T>(f, p, rows, y);
  for (int64_t i = 0; i < rows * kWide; i += kFloats) put(rounded<T>(at(x2 + i) * at(y + i)), y + i);
  write_rows(y, rows, f.valid, kWide, a.y + first * a.in.channels + f.channel, a.in.channels);
  move_rows(block.p + rows * kWide, f.back, kWide, block.p);
}

template <class T>
void hyena(const HyenaForward<T>& a, int64_t begin, int64_t end) {
  const int64_t stride = a.in.channels;
  for (int64_t c = begin; c < end; c += kSideBySide * kWide) {
    HyenaBlock blocks[kSideBySide];
    int count = 0;
    for (int64_t channel = c; count < kSideBySide && channel < end; ++count, channel += kWide) {
      HyenaBlock& block = blocks[count];
      read_filters(a.in, channel, static_cast<int>(end - channel < kWide ? end - channel : kWide),
                   block.filters);
      const HyenaFilters& f = block.filters;
      read_rows(a.in.p_before != nullptr ? a.in.p_before + channel : nullptr, stride, f.back, f.valid, kWide,
                block.p);
      if (f.modes > 0) read_rows(a.in.initial + channel, stride, f.modes, f.valid, kWide, block.state);
    }
    for (int64_t first = 0; first < a.in.length; first += kHyenaTile) {
      const int64_t rows = a.in.length - first < kHyenaTile ? a.in.length - first : kHyenaTile;
      for (int i = 0; i < count; ++i) hyena_tile(a, blocks[i], first, rows);
    }
    for (int i = 0; i < count; ++i) {
      const HyenaFilters& f = blocks[i].filters;
      if (f.modes > 0) write_rows(blocks[i].state, f.modes, f.valid, kWide, a.final + f.channel, stride);
      if (a.p_last != nullptr) write_rows(blocks[i].p, f.back, f.valid, kWide, a.p_last + f.channel, stride);
    }
  }
}

/// The gradient of one block, from the last tile to the first. Rows of gradients that later tiles left follow
/// those of a tile, so that a filter's gradient is the same filter with its taps turned round.
template <class T>
void hyena_gradient_block(const HyenaGradient<T>& a, const HyenaFilters& f) {
  const int64_t length = a.in.length, back = f.back, channels = a.in.channels, modes = f.modes;
  float turned[kMaxHyenaTaps * kWide], input_turned[3 * kTriple];
  for (int64_t j = 0; j <= back; ++j) move_rows(f.inner + (back - j) * kWide, 1, kWide, turned + j * kWide);
  for (int j = 0; j < 3; ++j)
    move_rows(f.input_taps + (2 - j) * kTriple, 1, kTriple, input_turned + j * kTriple);

  float z[(2 + kHyenaTile) * kTriple], p[(kMaxBack + kHyenaTile) * kWide],
      dinner[(kHyenaTile + kMaxBack) * kWide] = {}, dmixed[(kHyenaTile + 2) * kTriple] = {};
  float x2[kHyenaTile * kWide], x1[kHyenaTile * kWide], v[kHyenaTile * kWide], dy[kHyenaTile * kWide],
      inner_y[kHyenaTile * kWide], dp[kHyenaTile * kWide], given[kMaxBack * kWide];
  float state[kMaxModes * kWide], dstate[kMaxModes * kWide];
  float dinput_taps[3 * kTriple] = {}, dskip[kWide] = {}, dtaps[kMaxHyenaTaps * kWide] = {},
                        dpoles[kMaxModes * kWide] = {}, dresidues[kMaxModes * kWide] = {};
  if (modes > 0)
    read_rows(a.dfinal != nullptr ? a.dfinal + f.channel : nullptr, channels, modes, f.valid, kWide, dstate);

  for (int64_t first = (length - 1) / kHyenaTile * kHyenaTile; first >= 0; first -= kHyenaTile) {
    const int64_t rows = length - first < kHyenaTile ? length - first : kHyenaTile;
    // p from `back` rows before the tile on.
    const int64_t carried = first < back ? back - first : 0;
    read_rows(a.in.p_before != nullptr ? a.in.p_before + first * channels + f.channel : nullptr, channels,
              carried, f.valid, kWide, p);
    for (int64_t row = first - back + carried; row < first; row += kHyenaTile) {
      const int64_t some = first - row < kHyenaTile ? first - row : kHyenaTile;
      read_z(a.in, f, row, some, z);
      mix<T>(z, some, f.input_taps, {p + (row - first + back) * kWide, nullptr, nullptr, nullptr});
    }
    float* const p_here = p + back * kWide;
    read_z(a.in, f, first, rows, z);
    mix<T>(z, rows, f.input_taps, {p_here, x2, x1, v});

    if (modes > 0)
      read_rows(a.states + first / kHyenaTile * modes * channels + f.channel, channels, modes, f.valid, kWide,
                state);
    inner(f, p, rows, state, inner_y);
    add_skip<T>(f, p_here, rows, inner_y);
    read_rows(a.dy != nullptr ? a.dy + first * channels + f.channel : nullptr, channels, rows, f.valid, kWide,
              dy);
    float* const dinner_here = dinner + (kHyenaTile - rows) * kWide;
    for (int64_t i = 0; i < rows * kWide; i += kFloats)
      put(rounded<T>(at(dy + i) * at(x2 + i)), dinner_here + i);
    if (modes > 0) {
      read_rows(a.states + first / kHyenaTile * modes * channels + f.channel, channels, modes, f.valid, kWide,
                state);
      const ModalScanGradient<float> scan = {p,      f.poles(), f.residues(), state, dinner_here, dstate, dp,
                                             dpoles, dresidues, dstate,       rows,  modes,       kWide};
      modes == 16 ? modal_gradient_block<float, Lanes<float>, 16>(scan, 0)
                  : modal_gradient_block<float, Lanes<float>, 0>(scan, 0);
    } else {
      fir_block<float, Lanes<float>>({dinner_here, turned, dp, rows, back + 1, kWide}, 0);
    }
    // The last rows of p are an output too.
    const int64_t kept = length - back > first ? length - back : first;
    if (a.dp_last != nullptr && kept < first + rows) {
      read_rows(a.dp_last + (kept - length + back) * channels + f.channel, channels, first + rows - kept,
                f.valid, kWide, given);
      float* const to = dp + (kept - first) * kWide;
      for (int64_t i = 0; i < (first + rows - kept) * kWide; i += kFloats)
        put(at(to + i) + at(given + i), to + i);
    }
    add_skip<T>(f, dinner_here, rows, dp);

    float* const dmixed_here = dmixed + (kHyenaTile - rows) * kTriple;
    for (int64_t i = 0; i < rows * kWide; i += kFloats) {
      const Floats d = at(dp + i), dx2 = rounded<T>(at(dy + i) * at(inner_y + i)),
                   dx1 = rounded<T>(d * at(v + i)), dv = rounded<T>(d * at(x1 + i));
      float* const to = dmixed_here + 3 * i;
      put(in_turn<0>(dx2, dx1, dv, Indices{}), to);
      put(in_turn<1>(dx2, dx1, dv, Indices{}), to + kFloats);
      put(in_turn<2>(dx2, dx1, dv, Indices{}), to + 2 * kFloats);
    }
    if (a.dtaps != nullptr)
      fir_taps_block<float, Lanes<float>>({p, dinner_here, dtaps, rows, back + 1, kWide}, 0);
    if (a.dskip != nullptr)
      fir_taps_block<float, Lanes<float>>({p_here, dinner_here, dskip, rows, 1, kWide}, 0);
    for (int c = 0; c < kTriple; c += kWide) {
      if (a.dinput_taps != nullptr)
        fir_taps_block<float, Lanes<float>>({z, dmixed_here, dinput_taps, rows, 3, kTriple}, c);
    }
    for (int c = 0; c < kTriple; c += kWide)
      fir_block<float, Lanes<float>>({dmixed_here, input_turned, z, rows, 3, kTriple}, c);
    const int64_t last = length - 2 > first ? length - 2 : first;
    if (a.dlast != nullptr && last < first + rows) {
      float more[2 * kTriple];
      read_rows(a.dlast + ((last - length + 2) * channels + f.channel) * 3, 3 * channels, first + rows - last,
                3 * f.valid, kTriple, more);
      float* const to = z + (last - first) * kTriple;
      for (int64_t i = 0; i < (first + rows - last) * kTriple; i += kFloats)
        put(at(to + i) + at(more + i), to + i);
    }
    for (int64_t i = 0; i < rows * kTriple; i += kFloats) put(rounded<T>(at(z + i)), z + i);
    write_rows(z, rows, 3 * f.valid, kTriple, a.dz + (first * channels + f.channel) * 3, 3 * channels);

    move_rows(dinner_here, back, kWide, dinner + kHyenaTile * kWide);
    move_rows(dmixed_here, 2, kTriple, dmixed + kHyenaTile * kTriple);
  }
  // What came before the first row.
  const auto early = [&](const float* after, const float* taps, int64_t rows, int columns, float* to) {
    float padded[2 * kMaxBack * kWide] = {};
    move_rows(after, rows, columns, padded + rows * columns);
    for (int c = 0; c < columns; c += kWide)
      fir_block<float, Lanes<float>>({padded, taps, to, rows, rows + 1, columns}, c);
  };
  const auto add = [](const float* from, int64_t values, float* to) {
    for (int64_t i = 0; i < values; i += kFloats) put(at(to + i) + at(from + i), to + i);
  };
  const auto write_early = [&](float* from, int64_t rows, int columns, T* to) {
    for (int64_t i = 0; i < rows * columns; i += kFloats) put(rounded<T>(at(from + i)), from + i);
    write_rows(from, rows, columns / kWide * f.valid, columns, to + columns / kWide * f.channel,
               columns / kWide * channels);
  };
  if (a.dp_before != nullptr && modes == 0) {
    float out[kMaxBack * kWide];
    early(dinner + kHyenaTile * kWide, turned, back, kWide, out);
    if (a.dp_last != nullptr && length < back) {
      read_rows(a.dp_last + f.channel, channels, back - length, f.valid, kWide, given);
      add(given, (back - length) * kWide, out + length * kWide);
    }
    write_early(out, back, kWide, a.dp_before);
  }
  if (a.dbefore != nullptr) {
    float out[2 * kTriple], more[kTriple];
    early(dmixed + kHyenaTile * kTriple, input_turned, 2, kTriple, out);
    if (a.dlast != nullptr && length == 1) {
      read_rows(a.dlast + 3 * f.channel, 0, 1, 3 * f.valid, kTriple, more);
      add(more, kTriple, out + kTriple);
    }
    write_early(out, 2, kTriple, a.dbefore);
  }
  if (modes > 0) write_rows(dstate, modes, f.valid, kWide, a.dinitial + f.channel, channels);
  const auto add_to = [&](const float* from, int64_t rows, int columns, float* to) {
    if (to == nullptr) return;
    const int each = columns / kWide;
    for (int64_t row = 0; row < rows; ++row) {
      for (int i = 0; i < each * f.valid; ++i)
        to[(row * channels + f.channel) * each + i] += from[row * columns + i];
    }
  };
  add_to(dinput_taps, 3, kTriple, a.dinput_taps);
  add_to(dskip, 1, kWide, a.dskip);
  add_to(dtaps, back + 1, kWide, a.dtaps);
  add_to(dpoles, modes, kWide, a.dpoles);
  add_to(dresidues, modes, kWide, a.dresidues);
}

template <class T>
void hyena_gradient(const HyenaGradient<T>& a, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; c += kWide) {
    HyenaFilters filters;
    read_filters(a.in, c, static_cast<int>(end - c < kWide ? end - c : kWide), filters);
    hyena_gradient_block(a, filters);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
