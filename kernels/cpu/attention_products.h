// The products of attention of many rows in fp32: of keys that are packed once for all rows of a call, one
// key per lane, or, for few of them, read where they lie, one row per lane. A tile of rows keeps its scores,
// then its sums of values, in registers: nothing is ever summed across lanes. Compiled once per instruction
// set.
#pragma once

#include "attention_keys.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

/// acc[m] += sum_i a[m * a_row + i * a_step] b[i * b_step ..]
template <int M, int N>
[[gnu::always_inline]] inline void multiply(const float* a, int64_t a_row, int64_t a_step, const float* b,
                                            int64_t b_step, int64_t count, Floats (&acc)[M][N]) {
  for (int64_t i = 0; i < count; ++i) {
    Floats right[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) right[j] = load_bytes<Floats>(b + i * b_step + j * kFloats);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Floats left = broadcast(a[m * a_row + i * a_step]);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) acc[m][j] += left * right[j];
    }
  }
}

/// acc[m] = factor[m] * from[m * stride ..]
template <int M, int N>
[[gnu::always_inline]] inline void load_scaled(const float* from, int64_t stride, const float* factor,
                                               Floats (&acc)[M][N]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) acc[m][j] = load_bytes<Floats>(from + m * stride + j * kFloats) * factor[m];
  }
}
template <int M, int N>
[[gnu::always_inline]] inline void store_rows(const Floats (&acc)[M][N], float* to, int64_t stride) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) __builtin_memcpy(to + m * stride, acc[m], sizeof acc[m]);
}

/// Row `row` of tiles of kTile, each [channel][kTile]; null: no row. `room`: for one row.
template <int kTile, class T>
inline void put_column(int64_t row, const T* from, int64_t dim, int64_t padded, float* room, float* tiles) {
  float* to = tiles + row / kTile * kTile * padded + row % kTile;
  if (from != nullptr) widen_row(from, dim, padded, room);
  for (int64_t e = 0; e < padded; ++e) to[e * kTile] = from != nullptr ? room[e] : 0.0f;
}

/// Weights of products in fp32 are put down one register at a time, where the scores stood.
struct Fp32Weights {
  static constexpr int kWeights = 1;
  static void put_weights(float* to, const Floats (&weights)[kWeights]) {
    __builtin_memcpy(to, weights, sizeof weights);
  }
};

struct Fp32Products : Fp32Weights {
// Registers side by side in a tile of kTile rows: keys of its scores, channels of its sums.
#if defined(__AVX512F__)
  static constexpr int kTile = 8, kScoreRegisters = 3;
#elif defined(__AVX__)
  static constexpr int kTile = 4, kScoreRegisters = 3;
#else
  static constexpr int kTile = 4, kScoreRegisters = 2;
#endif
  static constexpr int kMixRegisters = 2;
  static constexpr int kStrip = kScoreRegisters * kFloats, kWide = kMixRegisters * kFloats;
  static_assert(kAttentionBlock % kStrip == 0 && kLinearPad % kWide == 0 && kAttentionTile % kTile == 0);

  int64_t dim, padded;
  float *q, *sums;       // of each tile: [channel][kTile], and [strip][kTile][kWide]
  float *keys, *values;  // [strip][channel][kStrip] and [strip][key][kWide]
  float *rows, *scales;  // [kFloats][padded] and [2][padded]
  float* scores;         // [kTile][kAttentionBlock], then their weights

  Fp32Products(int64_t of_dim, int64_t tiles, float* scratch)
      : dim(of_dim),
        padded(linear_padded(dim)),
        q(scratch),
        sums(q + tiles * kTile * padded),
        keys(sums + tiles * kTile * padded),
        values(keys + kAttentionBlock * padded),
        rows(values + kAttentionBlock * padded),
        scales(rows + kFloats * padded),
        scores(scales + 2 * padded) {}
  float* end_of_scratch() const { return scores + kTile * kAttentionBlock; }

  /// Null: no row.
  template <class T>
  void put_query(int64_t row, const T* from) {
    put_column<kTile>(row, from, dim, padded, rows, q);
  }
  float sum(int64_t row, int64_t channel) const {
    return sums[(row / kTile * padded + channel / kWide * kWide) * kTile + row % kTile * kWide +
                channel % kWide];
  }

  template <class T>
  void pack(const Block<T>& block) {
    const int64_t lanes = block.lanes();
    RowReader<T> of_keys(false, dim, padded, scales);
    const float* group[kFloats];
    block.for_lanes(
        (lanes + kStrip - 1) / kStrip * kStrip, [&](int64_t lane, const AttentionPart<T>* part, int64_t key) {
          group[lane % kFloats] = of_keys.read(part, key, rows + lane % kFloats * padded);
          if (lane % kFloats != kFloats - 1) return;
          const int64_t first = lane + 1 - kFloats;
          pack_transposed(group, padded, kStrip, keys + first / kStrip * padded * kStrip + first % kStrip);
        });
    RowReader<T> of_values(true, dim, padded, scales);
    block.for_lanes(lanes, [&](int64_t lane, const AttentionPart<T>* part, int64_t key) {
      const float* row = of_values.read(part, key, rows);
      for (int64_t e = 0; e < padded; e += kWide)
        __builtin_memcpy(values + e * kAttentionBlock + lane * kWide, row + e, kWide * sizeof(float));
    });
  }

  /// scores[m][n] = scale * <q[m], k[n]> + beta[m][n] for n < end and to the end of a strip; the largest of
  /// each lane.
  void score(int64_t tile, int64_t, int64_t end, float scale, const float* const (&beta)[kTile],
             Floats (&largest)[kTile]) const {
    for (int64_t n = 0; n < end; n += kStrip)
      score_strip(q + tile * kTile * padded, keys + n * padded, scale, beta, n, largest);
  }
  /// All rows of a tile take part, those that are not there as zeros.
  static int64_t weighed(int64_t) { return kTile; }
  /// sums[m] = factor[m] * sums[m] + sum_n weights[m][n] v[n]
  void mix(int64_t tile, int64_t, int64_t end, const float (&factor)[kTile]) const {
    for (int64_t e = 0; e < dim; e += kWide)
      mix_strip(values + e * kAttentionBlock, end, factor, sums + (tile * padded + e) * kTile);
  }

 private:
  void score_strip(const float* x, const float* k, float scale, const float* const (&beta)[kTile], int64_t n,
                   Floats (&largest)[kTile]) const {
    Floats acc[kTile][kScoreRegisters] = {};
    multiply(x, 1, kTile, k, kStrip, dim, acc);
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < kScoreRegisters; ++j) {
        const Floats s = acc[m][j] * scale + load_bytes<Floats>(beta[m] + n + j * kFloats);
        __builtin_memcpy(scores + m * kAttentionBlock + n + j * kFloats, &s, sizeof s);
        largest[m] = s > largest[m] ? s : largest[m];
      }
    }
  }
  void mix_strip(const float* v, int64_t count, const float (&factor)[kTile], float* to) const {
    Floats acc[kTile][kMixRegisters];
    load_scaled(to, kWide, factor, acc);
    multiply(scores, kAttentionBlock, 1, v, kWide, count, acc);
    store_rows(acc, to, kWide);
  }
};

/// For so few rows that packing keys and values takes longer than it saves: a register holds a channel of
/// many rows, and keys and values are read where they lie, or, where they are not whole registers of fp32,
/// widened and never transposed. Results are Fp32Products' to the last bit.
struct InPlaceProducts : Fp32Weights {
  static constexpr int kTile = 16, kRegisters = kTile / kFloats;
  static constexpr int kKeys = Fp32Products::kTile / (kRegisters > 2 ? 2 : 1);  // scored at a time
  static constexpr int kRows = Fp32Products::kTile, kMixRegisters = Fp32Products::kMixRegisters;
  static constexpr int kWide = Fp32Products::kWide;
  static_assert(kAttentionTile % kTile == 0 && kTile % kRows == 0);

  int64_t dim, padded;
  float *q, *sums;       // of each tile: [channel][kTile], and [kTile][padded]
  float *keys, *values;  // [kAttentionBlock][padded], of those that are widened
  float *row, *scales;   // [padded] and [2][padded]
  float* products;       // [kAttentionBlock][kTile], before they are scaled
  float* scores;         // [kTile][kAttentionBlock], then their weights
  /// Keys that lie in one place.
  struct Run {
    const float *k, *v;
    int64_t k_stride, v_stride, lane, count;
  };
  Run runs[kAttentionBlock];
  int64_t num_runs = 0;

  InPlaceProducts(int64_t of_dim, int64_t tiles, float* scratch)
      : dim(of_dim),
        padded(linear_padded(dim)),
        q(scratch),
        sums(q + tiles * kTile * padded),
        keys(sums + tiles * kTile * padded),
        values(keys + kAttentionBlock * padded),
        row(values + kAttentionBlock * padded),
        scales(row + padded),
        products(scales + 2 * padded),
        scores(products + kAttentionBlock * kTile) {}
  float* end_of_scratch() const { return scores + kTile * kAttentionBlock; }

  /// Null: no row.
  template <class T>
  void put_query(int64_t r, const T* from) {
    put_column<kTile>(r, from, dim, padded, row, q);
  }
  float sum(int64_t r, int64_t channel) const { return sums[r * padded + channel]; }

  template <class T>
  void pack(const Block<T>& block) {
    num_runs = block.num_segments;
    RowReader<T> of_keys(false, dim, padded, scales), of_values(true, dim, padded, scales);
    for (int64_t s = 0; s < num_runs; ++s) {
      const Segment& segment = block.segments[s];
      const AttentionPart<T>& part = block.args.parts[segment.part];
      Run& run = runs[s];
      run = {nullptr, nullptr, padded, padded, segment.lane, segment.count};
      run.k = place(of_keys, part, segment, keys, part.k_stride, run.k_stride);
      run.v = place(of_values, part, segment, values, part.v_stride, run.v_stride);
    }
  }

  void score(int64_t tile, int64_t, int64_t end, float scale, const float* const (&beta)[kTile],
             Floats (&largest)[kTile]) const {
    const float* x = q + tile * kTile * padded;
    int64_t made = 0;  // lanes
    for (int64_t s = 0; s < num_runs && runs[s].lane < end; ++s) {
      const Run& run = runs[s];
      clear(made, run.lane);
      made = run.lane + run.count < end ? run.lane + run.count : end;
      const int64_t count = made - run.lane;
      int64_t i = 0;
      for (; i + kKeys <= count; i += kKeys) score_keys<kKeys>(x, run, i);
      // The last ones once more with some before them, if there are: one key alone takes as long as many.
      if (i < count && count >= kKeys) score_keys<kKeys>(x, run, i = count - kKeys), i = count;
      for (; i < count; ++i) score_keys<1>(x, run, i);
    }
    const int64_t whole = (end + kFloats - 1) / kFloats * kFloats;
    clear(made, whole);
    for (int64_t n = 0; n < whole; n += kFloats) {
      for (int j = 0; j < kRegisters; ++j) turn(n, j * kFloats, scale, beta, largest);
    }
  }
  /// All rows of a tile take part, those that are not there as zeros.
  static int64_t weighed(int64_t) { return kTile; }
  void mix(int64_t tile, int64_t count, int64_t end, const float (&factor)[kTile]) const {
    for (int64_t m = 0; m < count; m += kRows) {
      for (int64_t e = 0; e < dim; e += kWide)
        mix_strip(scores + m * kAttentionBlock, e, end, factor + m, sums + (tile * kTile + m) * padded + e);
    }
  }

 private:
  /// Where the rows of a segment lie and how far apart; `own` has room for a block of them.
  template <class T>
  const float* place(RowReader<T>& reader, const AttentionPart<T>& part, const Segment& segment, float* own,
                     int64_t part_stride, int64_t& stride) const {
    float* to = own + segment.lane * padded;
    const float* first = reader.read(&part, segment.first, to);
    if (first != to) {
      stride = part_stride;
      return first;
    }
    for (int64_t i = 1; i < segment.count; ++i) reader.read(&part, segment.first + i, to + i * padded);
    return to;
  }
  /// What lanes without a key are multiplied by must be finite.
  void clear(int64_t from, int64_t to) const {
    for (int64_t i = from * kTile; i < to * kTile; ++i) products[i] = 0.0f;
  }
  template <int N>
  void score_keys(const float* x, const Run& run, int64_t first) const {
    Floats acc[N][kRegisters] = {};
    multiply(run.k + first * run.k_stride, run.k_stride, 1, x, kTile, dim, acc);
    __builtin_memcpy(products + (run.lane + first) * kTile, acc, sizeof acc);
  }
  /// Products of kFloats keys with as many rows become scores, rows first.
  void turn(int64_t n, int first_row, float scale, const float* const (&beta)[kTile],
            Floats (&largest)[kTile]) const {
    Floats tile[kFloats];
#pragma GCC unroll 16
    for (int i = 0; i < kFloats; ++i) tile[i] = load_bytes<Floats>(products + (n + i) * kTile + first_row);
    transpose(tile);
#pragma GCC unroll 16
    for (int i = 0; i < kFloats; ++i) {
      const int m = first_row + i;
      const Floats s = tile[i] * scale + load_bytes<Floats>(beta[m] + n);
      __builtin_memcpy(scores + m * kAttentionBlock + n, &s, sizeof s);
      largest[m] = s > largest[m] ? s : largest[m];
    }
  }
  void mix_strip(const float* weights, int64_t e, int64_t end, const float* factor, float* to) const {
    Floats acc[kRows][kMixRegisters];
    load_scaled(to, padded, factor, acc);
    for (int64_t s = 0; s < num_runs && runs[s].lane < end; ++s) {
      const Run& run = runs[s];
      const int64_t count = end - run.lane < run.count ? end - run.lane : run.count;
      multiply(weights + run.lane, kAttentionBlock, 1, run.v + e, run.v_stride, count, acc);
    }
    store_rows(acc, to, padded);
  }
};

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
