// Where attention of many rows takes its keys and values from: blocks of consecutive keys of all parts, read
// as fp32. Compiled once per instruction set.
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

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
