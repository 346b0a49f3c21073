// Attention of many rows, tile by tile and block by block of keys, compiled once per instruction set. How
// scores and sums of values are made is Products', see attention_products.h and attention_amx.h.
#pragma once

#include "attention_products.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

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
