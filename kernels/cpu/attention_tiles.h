// Attention of many rows, compiled once per instruction set. A block of keys is packed once for all rows of a
// call, one key per lane, or, for few of them, read where it lies, one row per lane; a tile of rows keeps its
// scores, then its sums of values, in registers: nothing is ever summed across lanes.
#pragma once

#include "attention_rows.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

/// a0 b0 a1 b1 .. of the lower and of the upper half of the lanes.
inline void interleave(Floats a, Floats b, Floats& lower, Floats& upper) {
#if defined(__AVX512F__)
  constexpr Ints low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
#elif defined(__AVX__)
  constexpr Ints low = {0, 8, 1, 9, 2, 10, 3, 11};
#else
  constexpr Ints low = {0, 4, 1, 5};
#endif
  lower = __builtin_shuffle(a, b, low);
  upper = __builtin_shuffle(a, b, low + kFloats / 2);
}

/// Lane i of row j becomes lane j of row i.
inline void transpose(Floats (&rows)[kFloats]) {
#pragma GCC unroll 4
  for (int step = 1; step < kFloats; step *= 2) {
    Floats next[kFloats];
#pragma GCC unroll 8
    for (int i = 0; i < kFloats / 2; ++i)
      interleave(rows[i], rows[i + kFloats / 2], next[2 * i], next[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < kFloats; ++i) rows[i] = next[i];
  }
}

/// 2^x for x <= 0 (and a little above it); below the smallest normal number it is 0. NaN stays NaN.
inline Floats exp2_negative(Floats x) {
  const Floats shifted = x + 12582912.0f;  // 1.5 * 2^23: the lowest bits are x, rounded to an integer
  const Floats f = x - (shifted - 12582912.0f);
  Floats p = broadcast(1.5353362e-4f);
  p = p * f + 1.3398874e-3f;
  p = p * f + 9.6184373e-3f;
  p = p * f + 5.5503324e-2f;
  p = p * f + 2.4022648e-1f;
  p = p * f + 6.9314720e-1f;
  p = p * f + 1.0f;
  const Ints power = (reinterpret_cast<Ints>(shifted) << 23) + (127 << 23);
  const Floats result = p * reinterpret_cast<Floats>(power);
  return x < -126.0f ? Floats{} : result;
}

constexpr float kLog2E = 1.44269504f;

// ---- Rows of keys or values as fp32

/// Where the rows of a block come from: keys [first, first + count) of a part, from `lane` on.
struct Segment {
  int64_t part, first, count, lane;
};

/// `inputs` values in their own order.
template <class C>
inline void read_in_order(const C* from, float* to) {
  using S = Step<C>;
  Floats values[S::parts];
  S::read(from, values);
  if constexpr (S::parts == 2) interleave(values[0], values[1], values[0], values[1]);
  __builtin_memcpy(to, values, sizeof values);
}
template <class C>
inline void widen_row(const C* from, int64_t dim, int64_t padded, float* to) {
  using S = Step<C>;
  int64_t e = 0;
  for (; e + S::inputs <= dim; e += S::inputs) read_in_order(from + e / S::inputs_in, to + e);
  if (e < dim) {
    C tail[S::inputs / S::inputs_in] = {};
    for (int64_t i = e / S::inputs_in; i < dim / S::inputs_in; ++i) tail[i - e / S::inputs_in] = from[i];
    read_in_order(tail, to + e);
    e += S::inputs;
  }
  for (; e < padded; ++e) to[e] = 0.0f;
}

/// Reads rows one by one; codes keep the scales of the last group.
template <class T>
class RowReader {
 public:
  /// `scales`: room for two rows.
  RowReader(bool values, int64_t dim, int64_t padded, float* scales)
      : values_(values), dim_(dim), padded_(padded), lows_(scales), steps_(scales + padded) {}

  /// The row itself where it can be read as it lies, else `to`, filled; zeros without a part.
  const float* read(const AttentionPart<T>* part, int64_t key, float* to) {
    if (part == nullptr) {
      for (int64_t e = 0; e < padded_; ++e) to[e] = 0.0f;
      return to;
    }
    if (part->bits == 8) return decode<8>(*part, key, to);
    if (part->bits == 4) return decode<4>(*part, key, to);
    const T* row = values_ ? part->v + key * part->v_stride : part->k + key * part->k_stride;
    if constexpr (sizeof(T) == sizeof(float)) {
      if (dim_ == padded_) return row;
    }
    widen_row(row, dim_, padded_, to);
    return to;
  }

 private:
  template <int kBits>
  const float* decode(const AttentionPart<T>& part, int64_t key, float* to) {
    const AttentionCodes& codes = values_ ? part.v_codes : part.k_codes;
    widen_row(reinterpret_cast<const Code<kBits>*>(codes.codes + key * codes.stride), dim_, padded_, to);
    const int64_t row = codes.scale_row == nullptr ? key : codes.scale_row[key];
    const uint16_t *low = codes.low + row * codes.scale_stride, *step = codes.step + row * codes.scale_stride;
    if (codes.scale_row == nullptr) {
      const Floats one_low = half_values(Words{} + *low), one_step = half_values(Words{} + *step);
      for (int64_t e = 0; e < padded_; e += kFloats) place(one_low, one_step, to + e);
    } else {
      if (low != last_) {
        widen_halves(low, lows_), widen_halves(step, steps_);
        last_ = low;
      }
      for (int64_t e = 0; e < padded_; e += kFloats)
        place(load_bytes<Floats>(lows_ + e), load_bytes<Floats>(steps_ + e), to + e);
    }
    for (int64_t e = dim_; e < padded_; ++e) to[e] = 0.0f;
    return to;
  }
  static void place(Floats low, Floats step, float* to) {
    const Floats value = low + step * load_bytes<Floats>(to);
    __builtin_memcpy(to, &value, sizeof value);
  }
  void widen_halves(const uint16_t* from, float* to) const {
    for (int64_t e = 0; e < padded_; e += kFloats) {
      uint32_t halves[kFloats] = {};
      for (int i = 0; i < kFloats && e + i < dim_; ++i) halves[i] = from[e + i];
      const Floats value = half_values(load_bytes<Words>(halves));
      __builtin_memcpy(to + e, &value, sizeof value);
    }
  }

  bool values_;
  int64_t dim_, padded_;
  float *lows_, *steps_;
  const uint16_t* last_ = nullptr;
};

// ---- A block of keys

/// kAttentionBlock consecutive keys of all parts together, from whichever parts they come. Which these are
/// does not depend on the rows; those that no row of the call sees stay out.
template <class T>
struct Block {
  const Attention<T>& args;
  int64_t beta_rows;
  float* beta;  // [beta_rows][kAttentionBlock], -inf where there is no key
  Segment segments[kAttentionBlock];
  int64_t num_segments = 0, part = 0, next = 0;  // the next key of the next block

  int64_t visible(int64_t of_part, int64_t row) const {
    const AttentionPart<T>& p = args.parts[of_part];
    return p.causal ? p.keys - args.queries + 1 + row / args.group : p.keys;
  }
  /// Moves on by a block, of which `last_row` sees most. False: there is none.
  bool advance(int64_t last_row) {
    if (part == args.num_parts) return false;
    num_segments = 0;
    for (int64_t lane = 0; lane < kAttentionBlock && part < args.num_parts;) {
      const int64_t left = args.parts[part].keys - next,
                    count = left < kAttentionBlock - lane ? left : kAttentionBlock - lane,
                    there = visible(part, last_row) - next, seen = there < count ? there : count;
      if (seen > 0) segments[num_segments++] = {part, next, seen, lane};
      lane += count, next += count;
      if (count == left) ++part, next = 0;
    }
    return true;
  }

  /// Lanes up to the last that `row` sees.
  int64_t end(int64_t row) const {
    for (int64_t s = num_segments; s-- > 0;) {
      const int64_t there = visible(segments[s].part, row) - segments[s].first;
      if (there > 0) return segments[s].lane + (there < segments[s].count ? there : segments[s].count);
    }
    return 0;
  }
  int64_t lanes() const { return segments[num_segments - 1].lane + segments[num_segments - 1].count; }

  /// use(lane, part, key) for each lane up to `to`, in order; the part is null where there is no key.
  template <class F>
  void for_lanes(int64_t to, const F& use) const {
    int64_t lane = 0;
    for (int64_t s = 0; s < num_segments; ++s) {
      for (; lane < segments[s].lane; ++lane) use(lane, nullptr, 0);
      for (int64_t i = 0; i < segments[s].count; ++i, ++lane)
        use(lane, args.parts + segments[s].part, segments[s].first + i);
    }
    for (; lane < to; ++lane) use(lane, nullptr, 0);
  }

  void pack_beta() {
    for (int64_t i = 0; i < beta_rows * kAttentionBlock; ++i) beta[i] = kHidden;
    for (int64_t s = 0; s < num_segments; ++s) {
      const AttentionPart<T>& p = args.parts[segments[s].part];
      for (int64_t h = 0; h < beta_rows; ++h) {
        float* to = beta + h * kAttentionBlock + segments[s].lane;
        const float* from = p.beta == nullptr ? nullptr : p.beta + h * p.beta_stride + segments[s].first;
        for (int64_t i = 0; i < segments[s].count; ++i) to[i] = from == nullptr ? 0.0f : from[i];
      }
    }
  }
};

/// Heads of the group that may have masses of their own.
template <class T>
int64_t beta_rows_of(const Attention<T>& a) {
  for (int64_t p = 0; p < a.num_parts; ++p) {
    if (a.parts[p].beta != nullptr && a.parts[p].beta_stride != 0) return a.group;
  }
  return 1;
}

/// Transposes rows [kFloats][padded] into [padded][pitch].
inline void pack_transposed(const float* const (&rows)[kFloats], int64_t padded, int64_t pitch, float* to) {
  for (int64_t e = 0; e < padded; e += kFloats) {
    Floats tile[kFloats];
#pragma GCC unroll 16
    for (int i = 0; i < kFloats; ++i) tile[i] = load_bytes<Floats>(rows[i] + e);
    transpose(tile);
#pragma GCC unroll 16
    for (int i = 0; i < kFloats; ++i) __builtin_memcpy(to + (e + i) * pitch, &tile[i], sizeof(Floats));
  }
}

// ---- Products in fp32

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

struct Fp32Products {
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
  static constexpr int kWeights = 1;  // registers of weights that are put down at a time
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
    float* to = q + row / kTile * kTile * padded + row % kTile;
    if (from != nullptr) widen_row(from, dim, padded, rows);
    for (int64_t e = 0; e < padded; ++e) to[e * kTile] = from != nullptr ? rows[e] : 0.0f;
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
  static void put_weights(float* to, const Floats (&weights)[kWeights]) {
    __builtin_memcpy(to, weights, sizeof weights);
  }
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
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < kMixRegisters; ++j)
        acc[m][j] = load_bytes<Floats>(to + m * kWide + j * kFloats) * factor[m];
    }
    multiply(scores, kAttentionBlock, 1, v, kWide, count, acc);
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < kMixRegisters; ++j)
        __builtin_memcpy(to + m * kWide + j * kFloats, &acc[m][j], sizeof(Floats));
    }
  }
};

/// For so few rows that packing keys and values takes longer than it saves: a register holds a channel of
/// many rows, and keys and values are read where they lie, or, where they are not whole registers of fp32,
/// widened and never transposed. Results are Fp32Products' to the last bit.
struct InPlaceProducts {
  static constexpr int kTile = 16, kRegisters = kTile / kFloats, kWeights = 1;
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
    float* to = q + r / kTile * kTile * padded + r % kTile;
    if (from != nullptr) widen_row(from, dim, padded, row);
    for (int64_t e = 0; e < padded; ++e) to[e * kTile] = from != nullptr ? row[e] : 0.0f;
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
  static void put_weights(float* to, const Floats (&weights)[kWeights]) {
    __builtin_memcpy(to, weights, sizeof weights);
  }
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
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < kMixRegisters; ++j)
        acc[m][j] = load_bytes<Floats>(to + m * padded + j * kFloats) * factor[m];
    }
    for (int64_t s = 0; s < num_runs && runs[s].lane < end; ++s) {
      const Run& run = runs[s];
      const int64_t count = end - run.lane < run.count ? end - run.lane : run.count;
      multiply(weights + run.lane, kAttentionBlock, 1, run.v + e, run.v_stride, count, acc);
    }
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < kMixRegisters; ++j)
        __builtin_memcpy(to + m * padded + j * kFloats, &acc[m][j], sizeof(Floats));
    }
  }
};

// ---- Rows

/// What a row carries from block to block: its weights are relative to that of the score `reference`.
struct TileRow {
  float reference;
  Floats total;  // of its weights, lane by lane
};

/// Turns the scores of a row into weights; what it has gathered counts as often as is returned.
template <class P>
inline float weigh_row(TileRow& row, Floats largest, int64_t end, float* scores) {
  const float most = largest_lane(largest);
  const float reference = most > row.reference ? most : row.reference;
  // Nothing visible yet: any finite reference keeps the weights 0 instead of NaN.
  const float base = reference == kHidden ? 0.0f : reference;
  Floats total = {};
  for (int64_t n = 0; n < end; n += P::kWeights * kFloats) {
    Floats weights[P::kWeights];
#pragma GCC unroll 2
    for (int i = 0; i < P::kWeights; ++i) {
      weights[i] = exp2_negative((load_bytes<Floats>(scores + n + i * kFloats) - base) * kLog2E);
      total += weights[i];
    }
    P::put_weights(scores + n, weights);
  }
  const Floats factor = exp2_negative(broadcast((row.reference - base) * kLog2E));
  row.total = row.total * factor + total;
  row.reference = reference;
  return factor[0];
}

/// Hides the keys that not all rows of a tile see.
template <int kTile, class T>
void hide(const Block<T>& block, int64_t first_row, int64_t last_row, int64_t end, float* scores,
          Floats (&largest)[kTile]) {
  bool any = false;
  for (int64_t s = 0; s < block.num_segments; ++s) {
    const Segment& segment = block.segments[s];
    if (block.visible(segment.part, first_row) - segment.first >= segment.count) continue;
    any = true;
    for (int m = 0; m < kTile; ++m) {
      const int64_t row = first_row + m < last_row ? first_row + m : last_row,
                    there = block.visible(segment.part, row) - segment.first;
      for (int64_t i = there > 0 ? there : 0; i < segment.count; ++i)
        scores[m * kAttentionBlock + segment.lane + i] = kHidden;
    }
  }
  if (!any) return;
  for (int m = 0; m < kTile; ++m) {
    largest[m] = broadcast(kHidden);
    for (int64_t n = 0; n < end; n += kFloats) {
      const Floats s = load_bytes<Floats>(scores + m * kAttentionBlock + n);
      largest[m] = s > largest[m] ? s : largest[m];
    }
  }
}

template <class P, class T>
void attend_tile(P& products, const Block<T>& block, int64_t tile, int64_t first_row, int64_t last_row,
                 TileRow* rows) {
  const int64_t end = block.end(last_row), count = last_row - first_row + 1;
  if (end == 0) return;
  const float* beta[P::kTile];
  Floats largest[P::kTile];
  for (int m = 0; m < P::kTile; ++m) {
    beta[m] = block.beta + (first_row + m) % block.beta_rows * kAttentionBlock;
    largest[m] = broadcast(kHidden);
  }
  products.score(tile, count, end, block.args.scale, beta, largest);
  hide(block, first_row, last_row, end, products.scores, largest);
  float factor[P::kTile];
  for (int64_t m = 0; m < P::weighed(count); ++m)
    factor[m] = weigh_row<P>(rows[m], largest[m], end, products.scores + m * kAttentionBlock);
  products.mix(tile, count, end, factor);
}

template <class P, class T>
void attention_tiles(const Attention<T>& a, int64_t begin, int64_t end) {
  const int64_t rows = end - begin, tiles = (rows + P::kTile - 1) / P::kTile;
  // Whole cache lines.
  float* aligned = a.scratch + (64 - reinterpret_cast<uintptr_t>(a.scratch) % 64) % 64 / sizeof(float);
  P products(a.dim, tiles, aligned);
  TileRow state[kAttentionRows];
  for (int64_t r = 0; r < tiles * P::kTile; ++r) {
    state[r] = {kHidden, Floats{}};
    products.put_query(
        r, r < rows ? a.q + (begin + r) % a.group * a.q_head_stride + (begin + r) / a.group * a.q_stride
                    : nullptr);
  }
  for (int64_t i = 0; i < tiles * P::kTile * products.padded; ++i) products.sums[i] = 0.0f;

  Block<T> block{a, beta_rows_of(a), products.end_of_scratch(), {}};
  while (block.advance(end - 1)) {
    if (block.num_segments == 0) continue;
    block.pack_beta();
    products.pack(block);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t row = begin + t * P::kTile, next = row + P::kTile;
      attend_tile(products, block, t, row, (next < end ? next : end) - 1, state + t * P::kTile);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float total = sum_lanes(state[r].total), share = total == 0.0f ? 0.0f : 1.0f / total;
    T* out = a.out + (begin + r) % a.group * a.out_head_stride + (begin + r) / a.group * a.out_stride;
    for (int64_t e = 0; e < a.dim; ++e) write(products.sum(r, e) * share, out + e);
    write_log_sum(a, begin + r, state[r].reference, total);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
