// Products of bf16 in AMX tiles. Weights, and what codes stand for, are two bf16 each, the second the rest
// of the first, so that products and sums round as in fp32.
#pragma once

#include <immintrin.h>

#include "attention_tiles.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

class AmxProducts {
 public:
  // A tile of rows is two of AMX's, a strip of keys or channels as well.
  static constexpr int kTile = 32, kWeights = 2;
  static_assert(kAttentionBlock % kTile == 0 && kLinearPad == kTile && kAttentionTile % kTile == 0);

  const int64_t dim, padded;
  float* const sums;    // of each tile: [strip][kTile][32]
  float* const scores;  // [kTile][kAttentionBlock], then weights: of each 32 keys 32 first halves, 32 second

  AmxProducts(int64_t of_dim, int64_t tiles, float* scratch)
      : dim(of_dim),
        padded(linear_padded(dim)),
        sums(scratch),
        scores(sums + tiles * kTile * padded),
        rows_(scores + kTile * kAttentionBlock),
        scales_(rows_ + padded),
        halves_(reinterpret_cast<Bf16*>(scales_ + 2 * padded)),
        rests_(halves_ + kFloats * padded),
        q_(rests_ + kFloats * padded),
        keys_(reinterpret_cast<uint32_t*>(q_ + tiles * kTile * padded)),
        values_(keys_ + kAttentionBlock * padded) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) config.bytes[i] = 64, config.rows[i] = 16;
    settle();
    _tile_loadconfig(&config);
  }
  ~AmxProducts() { _tile_release(); }
  AmxProducts(const AmxProducts&) = delete;
  AmxProducts& operator=(const AmxProducts&) = delete;
  float* end_of_scratch() const { return reinterpret_cast<float*>(values_ + kAttentionBlock * padded); }

  void put_query(int64_t row, const Bf16* from) const {
    Bf16* to = q_ + row * padded;
    for (int64_t e = 0; e < padded; ++e) to[e] = from != nullptr && e < dim ? from[e] : Bf16{0};
  }
  float sum(int64_t row, int64_t channel) const {
    return sums[row / kTile * kTile * padded + channel / 32 * 32 * kTile + row % kTile * 32 + channel % 32];
  }

  void pack(const Block<Bf16>& block) {
    planes_ = 1;
    for (int64_t s = 0; s < block.num_segments; ++s) {
      if (block.args.parts[block.segments[s].part].bits != 0) planes_ = 2;
    }
    const int64_t lanes = (block.lanes() + kTile - 1) / kTile * kTile;
    RowReader<Bf16> of_keys(false, dim, padded, scales_), of_values(true, dim, padded, scales_);
    const float *group[kFloats], *rests[kFloats];
    block.for_lanes(lanes, [&](int64_t lane, const AttentionPart<Bf16>* part, int64_t key) {
      const int64_t i = lane % kFloats;
      group[i] = reinterpret_cast<const float*>(
          read(of_keys, part, part == nullptr ? nullptr : part->k + key * part->k_stride, key, i));
      rests[i] = reinterpret_cast<const float*>(rests_ + i * padded);
      if (i != kFloats - 1) return;
      const int64_t first = lane + 1 - kFloats, at = first / kTile * padded / 2 * kTile + first % kTile;
      pack_transposed(group, padded / 2, kTile, reinterpret_cast<float*>(keys_) + at);
      if (planes_ == 2)
        pack_transposed(rests, padded / 2, kTile, reinterpret_cast<float*>(keys_ + plane()) + at);
    });
    const Bf16* even = nullptr;
    block.for_lanes(lanes, [&](int64_t lane, const AttentionPart<Bf16>* part, int64_t key) {
      const Bf16* row =
          read(of_values, part, part == nullptr ? nullptr : part->v + key * part->v_stride, key, lane % 2);
      if (lane % 2 == 0) {
        even = row;
        return;
      }
      pack_pairs(even, row, values_ + lane / 2 * kTile);
      if (planes_ == 2) pack_pairs(rests_, rests_ + padded, values_ + plane() + lane / 2 * kTile);
    });
  }

  void score(int64_t tile, int64_t count, int64_t end, float scale, const float* const (&beta)[kTile],
             Floats (&largest)[kTile]) const {
    const Bf16* q = q_ + tile * kTile * padded;
    settle();
    int64_t made = 0;
    for (; made < end; made += kTile) {
      if (count > 16)
        score_strip<2>(q, keys_ + made * padded / 2, scores + made);
      else
        score_strip<1>(q, keys_ + made * padded / 2, scores + made);
    }
    for (int64_t m = 0; m < count; ++m) {
      for (int64_t n = 0; n < made; n += kFloats) {
        float* at = scores + m * kAttentionBlock + n;
        const Floats s = load_bytes<Floats>(at) * scale + load_bytes<Floats>(beta[m] + n);
        __builtin_memcpy(at, &s, sizeof s);
        largest[m] = s > largest[m] ? s : largest[m];
      }
    }
  }
  /// Of a tile with `count` rows: what lies in the others goes to sums of no row.
  static int64_t weighed(int64_t count) { return count; }
  static void put_weights(float* to, const Floats (&weights)[kWeights]) {
    Halves first, second;
    split(weights[0], weights[1], first, second);
    __builtin_memcpy(to, &first, sizeof first);
    __builtin_memcpy(to + kFloats, &second, sizeof second);
  }
  void mix(int64_t tile, int64_t count, int64_t end, const float (&factor)[kTile]) const {
    float* to = sums + tile * kTile * padded;
    bool same = true;
    for (int64_t m = 0; m < count; ++m) same = same && factor[m] == 1.0f;
    for (int64_t e = 0; e < dim; e += 32) {
      float* strip = to + e * kTile;
      if (!same) {
        for (int64_t m = 0; m < count; ++m) {
          for (int i = 0; i < 32; ++i) strip[m * 32 + i] *= factor[m];
        }
      }
      settle();
      if (count > 16)
        mix_strip<2>(values_ + e * kAttentionBlock / 2, end, strip);
      else
        mix_strip<1>(values_ + e * kAttentionBlock / 2, end, strip);
    }
  }

 private:
  typedef uint16_t Halves __attribute__((vector_size(kBytes)));

  /// GCC does not know that tiles are loaded from memory.
  static void settle() { asm volatile("" ::: "memory"); }
  int64_t plane() const { return kAttentionBlock * padded / 2; }

  /// The upper halves of two registers in a row, and what is left of them, rounded.
  static void split(Floats a, Floats b, Halves& first, Halves& second) {
    constexpr Halves odd = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                            33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    first = __builtin_shuffle(reinterpret_cast<Halves>(a), reinterpret_cast<Halves>(b), odd);
    const auto rest = [](Floats x) {
      return reinterpret_cast<__m512>(x - reinterpret_cast<Floats>(reinterpret_cast<Words>(x) & 0xffff0000u));
    };
    second = reinterpret_cast<Halves>(_mm512_cvtne2ps_pbh(rest(b), rest(a)));
  }

  /// A row as it lies, or in halves_[to] with its rest in rests_[to].
  const Bf16* read(RowReader<Bf16>& reader, const AttentionPart<Bf16>* part, const Bf16* row, int64_t key,
                   int64_t to) const {
    Bf16 *half = halves_ + to * padded, *rest = rests_ + to * padded;
    if (part != nullptr && part->bits != 0) {
      const float* wide = reader.read(part, key, rows_);
      for (int64_t e = 0; e < padded; e += 2 * kFloats) {
        Halves first, second;
        split(load_bytes<Floats>(wide + e), load_bytes<Floats>(wide + e + kFloats), first, second);
        __builtin_memcpy(half + e, &first, sizeof first);
        __builtin_memcpy(rest + e, &second, sizeof second);
      }
      return half;
    }
    if (planes_ == 2) {
      for (int64_t e = 0; e < padded; ++e) rest[e] = 0;
    }
    if (part != nullptr && dim == padded) return row;
    for (int64_t e = 0; e < padded; ++e) half[e] = part != nullptr && e < dim ? row[e] : Bf16{0};
    return half;
  }

  /// Channels of two rows side by side, strip by strip.
  void pack_pairs(const Bf16* even, const Bf16* odd, uint32_t* to) const {
    constexpr Halves low = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    for (int64_t e = 0; e < padded; e += 32) {
      const Halves a = load_bytes<Halves>(even + e), b = load_bytes<Halves>(odd + e);
      const Halves pairs[2] = {__builtin_shuffle(a, b, low), __builtin_shuffle(a, b, low + 16)};
      __builtin_memcpy(to + e * kAttentionBlock / 2, pairs, sizeof pairs);
    }
  }

  // Registers 0 to 3 are sums, 4 and 5 rows, 6 and 7 keys or channels. kRows: of AMX's tiles.
  template <int kRows>
  void score_strip(const Bf16* q, const uint32_t* keys, float* to) const {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kRows == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (int64_t e = 0; e < padded; e += 32) {
      _tile_loadd(4, q + e, padded * 2);
      if constexpr (kRows == 2) _tile_loadd(5, q + 16 * padded + e, padded * 2);
      for (int64_t plane_at = 0; plane_at < planes_; ++plane_at)
        add<kRows>(keys + plane_at * plane() + e / 2 * kTile);
    }
    store<kRows>(to, kAttentionBlock * sizeof(float));
  }
  template <int kRows>
  void mix_strip(const uint32_t* values, int64_t end, float* to) const {
    _tile_loadd(0, to, 128);
    _tile_loadd(1, to + 16, 128);
    if constexpr (kRows == 2) {
      _tile_loadd(2, to + 16 * 32, 128);
      _tile_loadd(3, to + 16 * 32 + 16, 128);
    }
    constexpr int64_t pitch = kAttentionBlock * sizeof(float);
    for (int64_t n = 0; n < end; n += 32) {
      const float* weights = scores + n;
      const uint32_t* v = values + n / 2 * kTile;
      _tile_loadd(4, weights + 16, pitch);
      if constexpr (kRows == 2) _tile_loadd(5, weights + 16 * kAttentionBlock + 16, pitch);
      add<kRows>(v);
      _tile_loadd(4, weights, pitch);
      if constexpr (kRows == 2) _tile_loadd(5, weights + 16 * kAttentionBlock, pitch);
      multiply_tiles<kRows>();
      if (planes_ == 2) add<kRows>(v + plane());
    }
    store<kRows>(to, 128);
  }
  template <int kRows>
  static void add(const uint32_t* strip) {
    _tile_loadd(6, strip, 128);
    _tile_loadd(7, strip + 16, 128);
    multiply_tiles<kRows>();
  }
  template <int kRows>
  static void multiply_tiles() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kRows == 2) {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  template <int kRows>
  static void store(float* to, int64_t pitch) {
    _tile_stored(0, to, pitch);
    _tile_stored(1, to + 16, pitch);
    if constexpr (kRows == 2) {
      _tile_stored(2, to + 16 * pitch / 4, pitch);
      _tile_stored(3, to + 16 * pitch / 4 + 16, pitch);
    }
  }

  float *const rows_, *const scales_;     // [padded] and [2][padded] for codes
  Bf16 *const halves_, *const rests_;     // [kFloats][padded]
  Bf16* const q_;                         // [row][padded]
  uint32_t *const keys_, *const values_;  // pairs, two planes: [strip][channels][32 keys], [strip][keys][32]
  int64_t planes_ = 1;
};

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
