// Attention of few rows, compiled once per instruction set: keys and values are read once, as they lie.
#pragma once

#include "focus/kernels/attention.h"
#include "linear.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

constexpr float kHidden = -__builtin_inff();

/// Even and odd lanes of two registers, added: halves the lanes of two rows of partial sums.
inline Floats add_neighbours(Floats a, Floats b) {
#if defined(__AVX512F__)
  constexpr Ints even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
#elif defined(__AVX__)
  constexpr Ints even = {0, 2, 4, 6, 8, 10, 12, 14};
#else
  constexpr Ints even = {0, 2, 4, 6};
#endif
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

/// Lane i of the result is the sum over all lanes of rows[i].
inline Floats sum_rows(Floats (&rows)[kFloats]) {
#pragma GCC unroll 4
  for (int count = kFloats; count > 1; count /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < count / 2; ++i) rows[i] = add_neighbours(rows[2 * i], rows[2 * i + 1]);
  }
  return rows[0];
}

/// exp(x) for x <= 0, to one unit in the last place; below the smallest normal number it is 0. NaN stays NaN.
inline Floats exp_negative(Floats x) {
  const Floats magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = (x * 1.44269504f + magic) - magic;
  const Floats f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  const Floats result = p * reinterpret_cast<Floats>(power);
  return x < -87.0f ? Floats{} : result;
}

inline float largest_lane(Floats v) {
  float lanes[kFloats];
  __builtin_memcpy(lanes, &v, sizeof v);
  float out = lanes[0];
  for (int i = 1; i < kFloats; ++i) out = lanes[i] > out ? lanes[i] : out;
  return out;
}

/// Rows [keys, ..] of T.
template <class T>
struct Rows {
  const T* data;
  int64_t stride, keys;
};

/// scores[m][n] = <q[m], k[first + n]> for n < count, rounded up to whole registers (what lies beyond is
/// finite and meaningless).
template <class T, int M>
void score_rows(const Rows<T>& rows, int64_t dim, int64_t first, int64_t count, const float* q,
                float* scores) {
  const float* x[M];
  for (int m = 0; m < M; ++m) x[m] = q + m * linear_padded(dim);
  for (int64_t n = 0; n < count; n += kFloats) {
    Floats sums[M][kFloats];
    for (int o = 0; o < kFloats; o += kTileKeys) {
      const T* k[kTileKeys];
      for (int j = 0; j < kTileKeys; ++j) {
        const int64_t key = first + n + o + j;
        k[j] = rows.data + (key < rows.keys ? key : rows.keys - 1) * rows.stride;
      }
      Floats tile[kTileKeys][M];
      dot_tile<T, kTileKeys, M>(k, x, dim, tile);
#pragma GCC unroll 8
      for (int j = 0; j < kTileKeys; ++j) {
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) sums[m][o + j] = tile[j][m];
      }
    }
    for (int m = 0; m < M; ++m) {
      const Floats row = sum_rows(sums[m]);
      __builtin_memcpy(scores + m * kAttentionPitch + n, &row, sizeof row);
    }
  }
}

/// sums[m][packed e] += sum_n weights[m][n] v[n][e] for the S steps of e that begin at `at`.
template <class T, int M, int S>
inline void mix_steps(const T* v, int64_t stride, int64_t count, const float* weights, int64_t at,
                      int64_t padded, float* sums) {
  constexpr int parts = Step<T>::parts;
  Floats acc[M][S * parts];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int s = 0; s < S * parts; ++s) acc[m][s] = load_bytes<Floats>(sums + m * padded + at + s * kFloats);
  }
  for (int64_t n = 0; n < count; ++n) {
    Floats value[S * parts];
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s)
      Step<T>::read(v + n * stride + s * (Step<T>::inputs / Step<T>::inputs_in), value + s * parts);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Floats weight = broadcast(weights[m * kAttentionPitch + n]);
#pragma GCC unroll 8
      for (int s = 0; s < S * parts; ++s) acc[m][s] += weight * value[s];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int s = 0; s < S * parts; ++s)
      __builtin_memcpy(sums + m * padded + at + s * kFloats, &acc[m][s], sizeof(Floats));
  }
}

template <class T, int M>
void mix_rows(const Rows<T>& rows, int64_t dim, int64_t first, int64_t count, const float* weights,
              float* sums) {
  constexpr int inputs = Step<T>::inputs, inputs_in = Step<T>::inputs_in, wide = kTileKeys / Step<T>::parts;
  const T* v = rows.data + first * rows.stride;
  const int64_t padded = linear_padded(dim);
  int64_t at = 0;
  for (; at + wide * inputs <= dim; at += wide * inputs)
    mix_steps<T, M, wide>(v + at / inputs_in, rows.stride, count, weights, at, padded, sums);
  for (; at + inputs <= dim; at += inputs)
    mix_steps<T, M, 1>(v + at / inputs_in, rows.stride, count, weights, at, padded, sums);
  if (at == dim) return;
  constexpr int units = inputs / inputs_in;
  T tail[kAttentionKeys * units] = {};
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t e = at / inputs_in; e < dim / inputs_in; ++e)
      tail[n * units + e - at / inputs_in] = v[n * rows.stride + e];
  }
  mix_steps<T, M, 1>(tail, units, count, weights, at, padded, sums);
}

/// The state of one row between blocks of keys.
struct RowState {
  float largest, total;
  float low;        // of values in codes: what all channels get
  int64_t visible;  // keys of the current part
};

/// Turns a row's scores into weights relative to its largest score so far, and rescales what it has gathered
/// when that grew.
inline void weigh(RowState& row, const float* beta, int64_t first, int64_t count, int64_t padded,
                  float* scores, float* sums) {
  const int64_t seen = row.visible - first < count ? row.visible - first : count;
  const int64_t end = (count + kFloats - 1) / kFloats * kFloats;
  for (int64_t n = seen > 0 ? seen : 0; n < end; ++n) scores[n] = kHidden;
  if (beta != nullptr) {
    for (int64_t n = 0; n < seen; ++n) scores[n] += beta[first + n];
  }
  Floats top = broadcast(row.largest);
  for (int64_t n = 0; n < end; n += kFloats) {
    const Floats s = load_bytes<Floats>(scores + n);
    top = s > top ? s : top;
  }
  const float largest = largest_lane(top);
  // Nothing visible yet: any finite reference keeps the weights 0 instead of NaN.
  const float reference = largest == kHidden ? 0.0f : largest;
  Floats total = {};
  for (int64_t n = 0; n < end; n += kFloats) {
    const Floats weight = exp_negative(load_bytes<Floats>(scores + n) - reference);
    total += weight;
    __builtin_memcpy(scores + n, &weight, sizeof weight);
  }
  if (largest > row.largest) {
    float factor[kFloats];
    const Floats all = exp_negative(broadcast(row.largest - reference));
    __builtin_memcpy(factor, &all, sizeof all);
    row.total *= factor[0];
    row.low *= factor[0];
    for (int64_t e = 0; e < padded; ++e) sums[e] *= factor[0];
    row.largest = largest;
  }
  row.total += sum_lanes(total);
}

/// Where a call wants it: the logarithm of the sum of exp(score).
template <class T>
inline void write_log_sum(const Attention<T>& a, int64_t row, float reference, float total) {
  if (a.log_sum == nullptr) return;
  a.log_sum[row % a.group * a.queries + row / a.group] =
      total == 0.0f ? kHidden : reference + __builtin_logf(total);
}

template <class T, class F>
inline void for_row_tiles(int64_t rows, const F& run) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) run.template operator()<kTileRows>(row);
  for (; row < rows; ++row) run.template operator()<1>(row);
}

/// The rows of one call: queries and sums are packed as T or, for the time of a part in codes, as bf16.
template <class T>
struct Work {
  const Attention<T>& args;
  int64_t begin, rows, padded;
  float *q, *sums, *scores;
  RowState* state;

  /// For every block of keys that some row sees: scores, weights and their mix.
  template <class Score, class Mix>
  void walk(const AttentionPart<T>& part, const Score& score, const Mix& mix) {
    for (int64_t r = 0; r < rows; ++r)
      state[r].visible = part.causal ? part.keys - args.queries + 1 + (begin + r) / args.group : part.keys;
    const int64_t last = state[rows - 1].visible;  // the latest query sees most
    for (int64_t first = 0; first < last; first += kAttentionKeys) {
      const int64_t count = last - first < kAttentionKeys ? last - first : kAttentionKeys;
      score(first, count);
      for (int64_t r = 0; r < rows; ++r) {
        const float* beta =
            part.beta == nullptr ? nullptr : part.beta + (begin + r) % args.group * part.beta_stride;
        weigh(state[r], beta, first, count, padded, scores + r * kAttentionPitch, sums + r * padded);
      }
      mix(first, count);
    }
  }
};

template <class T>
void attend(Work<T>& work, const AttentionPart<T>& part) {
  const int64_t dim = work.args.dim, padded = work.padded;
  const Rows<T> k{part.k, part.k_stride, part.keys}, v{part.v, part.v_stride, part.keys};
  work.walk(
      part,
      [&](int64_t first, int64_t count) {
        for_row_tiles<T>(work.rows, [&]<int M>(int64_t r) {
          score_rows<T, M>(k, dim, first, count, work.q + r * padded, work.scores + r * kAttentionPitch);
        });
      },
      [&](int64_t first, int64_t count) {
        for_row_tiles<T>(work.rows, [&]<int M>(int64_t r) {
          mix_rows<T, M>(v, dim, first, count, work.scores + r * kAttentionPitch, work.sums + r * padded);
        });
      });
}

// ---- Keys and values in codes. With x = low + step * code the score of a key is <q * step, code> + <q,
// low>, and a weighted sum of values is the sum of (weight * step) * code, plus that of weight * low for all
// channels: codes become fp32 and are multiplied, and no key or value is ever written down.

/// As many channels of whole numbers as a byte holds.
template <int kBits>
struct Code {
  uint8_t byte;
};
template <int kBits>
struct Step<Code<kBits>> {
  // Packed as bf16 is: a 32-bit word has an even and an odd channel.
  static constexpr int parts = 2, inputs = 2 * kFloats, inputs_in = 8 / kBits;
  static void read(const Code<kBits>* from, Floats* out) {
    Words words;
    typedef uint16_t Shorts __attribute__((vector_size(2 * kFloats)));
    if constexpr (kBits == 8) {
      words = __builtin_convertvector(load_bytes<Shorts>(from), Words);
    } else {
      // In two steps, for each of which there is an instruction that GCC finds.
      typedef uint8_t Bytes __attribute__((vector_size(kFloats)));
      words = __builtin_convertvector(__builtin_convertvector(load_bytes<Bytes>(from), Shorts), Words);
    }
    constexpr uint32_t mask = (1u << kBits) - 1;
    out[0] = __builtin_convertvector(reinterpret_cast<Ints>(words & mask), Floats);
    out[1] = __builtin_convertvector(reinterpret_cast<Ints>(words >> kBits), Floats);
  }
};

/// fp16 in the low halves of words.
inline Floats half_values(Words words) {
  const Words magnitude = words & 0x7fffu, sign = (words & 0x8000u) << 16;
  // The exponent's bias is 112 more in fp32; denormal numbers come out right as well.
  const Floats value = reinterpret_cast<Floats>(magnitude << 13) * 0x1p112f;
  const Words special = (magnitude << 13) | 0x7f800000u;
  const Words bits = magnitude >= 0x7c00u ? special : reinterpret_cast<Words>(value);
  return reinterpret_cast<Floats>(bits | sign);
}
/// [dim] fp16 widened and packed as bf16 is.
inline void pack_halves(const uint16_t* from, int64_t dim, float* packed) {
  constexpr int inputs = 2 * kFloats;
  for (int64_t i = 0; i < dim; i += inputs) {
    uint16_t tail[inputs] = {};
    if (dim - i < inputs) {
      for (int64_t e = i; e < dim; ++e) tail[e - i] = from[e];
    }
    const Words words = load_bytes<Words>(dim - i < inputs ? tail : from + i);
    const Floats even = half_values(words & 0xffffu), odd = half_values(words >> 16);
    __builtin_memcpy(packed + i, &even, sizeof even);
    __builtin_memcpy(packed + i + kFloats, &odd, sizeof odd);
  }
}
/// [count] fp16 `stride` apart, widened; `to` has room for whole registers.
inline void read_halves(const uint16_t* from, int64_t stride, int64_t count, float* to) {
  for (int64_t n = 0; n < count; n += kFloats) {
    uint32_t halves[kFloats] = {};
    for (int i = 0; i < kFloats && n + i < count; ++i) halves[i] = from[(n + i) * stride];
    const Floats values = half_values(load_bytes<Words>(halves));
    __builtin_memcpy(to + n, &values, sizeof values);
  }
}

/// A row packed as From in the order of To, in place; `spare` has room for one.
template <class From, class To>
inline void repack(int64_t padded, float* row, float* spare) {
  if constexpr (Step<From>::parts != Step<To>::parts) {
    const auto place = []<class W>(int64_t e) {
      return e / Step<W>::inputs * Step<W>::inputs + packed_index<W>(static_cast<int>(e % Step<W>::inputs));
    };
    for (int64_t e = 0; e < padded; ++e)
      spare[place.template operator()<To>(e)] = row[place.template operator()<From>(e)];
    __builtin_memcpy(row, spare, static_cast<std::size_t>(padded) * sizeof(float));
  }
}

inline float dot(const float* a, const float* b, int64_t padded) {
  Floats sum = {};
  for (int64_t e = 0; e < padded; e += kFloats) sum += load_bytes<Floats>(a + e) * load_bytes<Floats>(b + e);
  return sum_lanes(sum);
}

template <int kBits, class T>
void attend_codes(Work<T>& work, const AttentionPart<T>& part) {
  using C = Code<kBits>;
  const int64_t rows = work.rows, dim = work.args.dim, padded = work.padded;
  const auto rows_of = [&](const AttentionCodes& codes) {
    return Rows<C>{reinterpret_cast<const C*>(codes.codes), codes.stride, part.keys};
  };
  const Rows<C> k = rows_of(part.k_codes), v = rows_of(part.v_codes);
  float *scaled = work.scores + rows * kAttentionPitch, *lows = scaled + rows * padded,
        *steps = lows + padded;
  for (int64_t r = 0; r < rows; ++r) {
    repack<T, Bf16>(padded, work.q + r * padded, lows);
    repack<T, Bf16>(padded, work.sums + r * padded, lows);
  }
  const bool by_channel = part.k_codes.scale_row != nullptr;
  for (int64_t e = 0; e < 2 * padded; ++e) lows[e] = by_channel ? 0.0f : 1.0f;
  float low[kAttentionPitch], step[kAttentionPitch];
  float of_low[kAttentionFewRows];  // <q, low> for each row, or the sum of q where keys have scales of their
                                    // own
  const auto gather_lows = [&] {
    for (int64_t r = 0; r < rows; ++r) of_low[r] = dot(work.q + r * padded, lows, padded);
  };
  if (!by_channel) gather_lows();
  const auto read_scales = [&](const AttentionCodes& codes, int64_t first, int64_t count) {
    read_halves(codes.low + first * codes.scale_stride, codes.scale_stride, count, low);
    read_halves(codes.step + first * codes.scale_stride, codes.scale_stride, count, step);
  };
  const auto score = [&](int64_t first, int64_t count, const float* q, float* scores) {
    for_row_tiles<T>(rows, [&]<int M>(int64_t r) {
      score_rows<C, M>(k, dim, first, count, q + r * padded, scores + r * kAttentionPitch);
    });
  };
  work.walk(
      part,
      [&](int64_t first, int64_t count) {
        if (!by_channel) {
          score(first, count, work.q, work.scores);
          read_scales(part.k_codes, first, count);
          for (int64_t r = 0; r < rows; ++r) {
            float* s = work.scores + r * kAttentionPitch;
            for (int64_t n = 0; n < count; ++n) s[n] = s[n] * step[n] + of_low[r] * low[n];
          }
          return;
        }
        for (int64_t n = 0, size = 0; n < count; n += size) {  // keys that share their scales
          const int32_t* row = part.k_codes.scale_row + first + n;
          for (size = 1; n + size < count && row[size] == *row; ++size) {
          }
          pack_halves(part.k_codes.low + *row * part.k_codes.scale_stride, dim, lows);
          pack_halves(part.k_codes.step + *row * part.k_codes.scale_stride, dim, steps);
          gather_lows();
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t e = 0; e < padded; ++e) scaled[r * padded + e] = work.q[r * padded + e] * steps[e];
          }
          score(first + n, size, scaled, work.scores + n);
          for (int64_t r = 0; r < rows; ++r) {
            float* s = work.scores + r * kAttentionPitch + n;
            for (int64_t i = 0; i < size; ++i) s[i] += of_low[r];
          }
        }
      },
      [&](int64_t first, int64_t count) {
        read_scales(part.v_codes, first, count);
        for (int64_t r = 0; r < rows; ++r) {
          float* weights = work.scores + r * kAttentionPitch;
          Floats lowest = {};
          for (int64_t n = 0; n < count; n += kFloats) {
            const Floats weight = load_bytes<Floats>(weights + n);
            lowest += weight * load_bytes<Floats>(low + n);
            const Floats stepped = weight * load_bytes<Floats>(step + n);
            __builtin_memcpy(weights + n, &stepped, sizeof stepped);
          }
          work.state[r].low += sum_lanes(lowest);
        }
        for_row_tiles<T>(rows, [&]<int M>(int64_t r) {
          mix_rows<C, M>(v, dim, first, count, work.scores + r * kAttentionPitch, work.sums + r * padded);
        });
      });
  for (int64_t r = 0; r < rows; ++r) {
    float* sums = work.sums + r * padded;
    for (int64_t e = 0; e < padded; ++e) sums[e] += work.state[r].low;
    work.state[r].low = 0.0f;
    repack<Bf16, T>(padded, work.q + r * padded, lows);
    repack<Bf16, T>(padded, sums, lows);
  }
}

template <class T>
void attention_rows(const Attention<T>& a, int64_t begin, int64_t end) {
  const int64_t rows = end - begin, dim = a.dim, padded = linear_padded(dim);
  float *q = a.scratch, *sums = q + rows * padded, *scores = sums + rows * padded;
  RowState state[kAttentionFewRows];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t head = (begin + r) % a.group, query = (begin + r) / a.group;
    float* row = q + r * padded;
    linear_pack<T, T>(a.q + head * a.q_head_stride + query * a.q_stride, dim, row);
    for (int64_t e = 0; e < padded; ++e) {
      row[e] *= a.scale;
      sums[r * padded + e] = 0.0f;
    }
    state[r] = {kHidden, 0.0f, 0.0f, 0};
  }
  Work<T> work{a, begin, rows, padded, q, sums, scores, state};
  for (int64_t p = 0; p < a.num_parts; ++p) {
    const AttentionPart<T>& part = a.parts[p];
    if (part.bits == 8)
      attend_codes<8>(work, part);
    else if (part.bits == 4)
      attend_codes<4>(work, part);
    else
      attend(work, part);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float share = state[r].total == 0.0f ? 0.0f : 1.0f / state[r].total;
    T* out = a.out + (begin + r) % a.group * a.out_head_stride + (begin + r) / a.group * a.out_stride;
    for (int64_t e = 0; e < dim; ++e) {
      const int64_t step = e / Step<T>::inputs * Step<T>::inputs;
      write(sums[r * padded + step + packed_index<T>(static_cast<int>(e - step))] * share, out + e);
    }
    write_log_sum(a, begin + r, state[r].largest, state[r].total);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
