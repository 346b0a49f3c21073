// Bodies of the attention kernel, compiled once per instruction set.
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
  const Floats magic = Floats{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = (x * 1.44269504f + magic) - magic;
  const Floats f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = Floats{} + 1.9875691500e-4f;
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

/// scores[m][n] = <q[m], k[first + n]> for n < count, rounded up to whole registers (what lies beyond is
/// finite and meaningless).
template <class T, int M>
void score_rows(const AttentionPart<T>& part, int64_t dim, int64_t first, int64_t count, const float* q,
                float* scores) {
  const float* x[M];
  for (int m = 0; m < M; ++m) x[m] = q + m * linear_padded(dim);
  for (int64_t n = 0; n < count; n += kFloats) {
    Floats sums[M][kFloats];
    for (int o = 0; o < kFloats; o += kTileKeys) {
      const T* k[kTileKeys];
      for (int j = 0; j < kTileKeys; ++j) {
        const int64_t key = first + n + o + j;
        k[j] = part.k + (key < part.keys ? key : part.keys - 1) * part.k_stride;
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
      __builtin_memcpy(scores + m * kAttentionKeys + n, &row, sizeof row);
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
    for (int s = 0; s < S; ++s) Step<T>::read(v + n * stride + s * Step<T>::inputs, value + s * parts);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Floats weight = Floats{} + weights[m * kAttentionKeys + n];
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
void mix_rows(const AttentionPart<T>& part, int64_t dim, int64_t first, int64_t count, const float* weights,
              float* sums) {
  constexpr int inputs = Step<T>::inputs, wide = kTileKeys / Step<T>::parts;
  const T* v = part.v + first * part.v_stride;
  const int64_t padded = linear_padded(dim);
  int64_t at = 0;
  for (; at + wide * inputs <= dim; at += wide * inputs)
    mix_steps<T, M, wide>(v + at, part.v_stride, count, weights, at, padded, sums);
  for (; at + inputs <= dim; at += inputs)
    mix_steps<T, M, 1>(v + at, part.v_stride, count, weights, at, padded, sums);
  if (at == dim) return;
  T tail[kAttentionKeys * inputs] = {};
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t e = at; e < dim; ++e) tail[n * inputs + e - at] = v[n * part.v_stride + e];
  }
  mix_steps<T, M, 1>(tail, inputs, count, weights, at, padded, sums);
}

/// The state of one row between blocks of keys.
struct RowState {
  float largest, total;
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
  Floats top = Floats{} + row.largest;
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
    const Floats all = exp_negative(Floats{} + (row.largest - reference));
    __builtin_memcpy(factor, &all, sizeof all);
    row.total *= factor[0];
    for (int64_t e = 0; e < padded; ++e) sums[e] *= factor[0];
    row.largest = largest;
  }
  row.total += sum_lanes(total);
}

inline void write(float value, float* to) { *to = value; }
inline void write(float value, Bf16* to) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  // To the nearest, ties to even; a NaN keeps its top bits and must not round into infinity.
  *to = static_cast<Bf16>(value != value ? (bits >> 16) | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

template <class T, class F>
inline void for_row_tiles(int64_t rows, const F& run) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) run.template operator()<kTileRows>(row);
  for (; row < rows; ++row) run.template operator()<1>(row);
}

template <class T>
void attention(const Attention<T>& a, int64_t begin, int64_t end) {
  const int64_t rows = end - begin, dim = a.dim, padded = linear_padded(dim);
  float *q = a.scratch, *sums = q + rows * padded, *scores = sums + rows * padded;
  RowState state[kAttentionRows];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t head = (begin + r) % a.group, query = (begin + r) / a.group;
    float* row = q + r * padded;
    linear_pack<T, T>(a.q + head * a.q_head_stride + query * a.q_stride, dim, row);
    for (int64_t e = 0; e < padded; ++e) {
      row[e] *= a.scale;
      sums[r * padded + e] = 0.0f;
    }
    state[r] = {kHidden, 0.0f, 0};
  }
  for (int64_t p = 0; p < a.num_parts; ++p) {
    const AttentionPart<T>& part = a.parts[p];
    for (int64_t r = 0; r < rows; ++r)
      state[r].visible = part.causal ? part.keys - a.queries + 1 + (begin + r) / a.group : part.keys;
    const int64_t last = state[rows - 1].visible;  // the latest query sees most
    for (int64_t first = 0; first < last; first += kAttentionKeys) {
      const int64_t count = last - first < kAttentionKeys ? last - first : kAttentionKeys;
      for_row_tiles<T>(rows, [&]<int M>(int64_t r) {
        score_rows<T, M>(part, dim, first, count, q + r * padded, scores + r * kAttentionKeys);
      });
      for (int64_t r = 0; r < rows; ++r) {
        const float* beta =
            part.beta == nullptr ? nullptr : part.beta + (begin + r) % a.group * part.beta_stride;
        weigh(state[r], beta, first, count, padded, scores + r * kAttentionKeys, sums + r * padded);
      }
      for_row_tiles<T>(rows, [&]<int M>(int64_t r) {
        mix_rows<T, M>(part, dim, first, count, scores + r * kAttentionKeys, sums + r * padded);
      });
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float share = state[r].total == 0.0f ? 0.0f : 1.0f / state[r].total;
    T* out = a.out + (begin + r) % a.group * a.out_head_stride + (begin + r) / a.group * a.out_stride;
    for (int64_t e = 0; e < dim; ++e) {
      const int64_t step = e / Step<T>::inputs * Step<T>::inputs;
      write(sums[r * padded + step + packed_index<T>(static_cast<int>(e - step))] * share, out + e);
    }
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
