// Gradients of attention, compiled once per instruction set: weights are made anew from each row's
// log-sum-exp, a block of keys and a few rows at a time, and all five products are tiles in registers.
#pragma once

#include "attention_tiles.h"

namespace focus::kernels::FOCUS_ISA {
namespace {

constexpr int64_t kGradientRows = 64;

template <class T>
class GradientBlock {
  static constexpr int kTile = Fp32Products::kTile, kRegisters = Fp32Products::kScoreRegisters,
                       kStrip = Fp32Products::kStrip, kWide = Fp32Products::kWide,
                       kWideRegisters = Fp32Products::kMixRegisters;
  static_assert(kGradientRows % kTile == 0 && kAttentionBlock % kTile == 0);

 public:
  GradientBlock(const AttentionGradient<T>& args, int64_t beta_rows)
      : args_(args),
        a_(args.attention),
        padded_(linear_padded(a_.dim)),
        q_(a_.scratch + (64 - reinterpret_cast<uintptr_t>(a_.scratch) % 64) % 64 / sizeof(float)),
        grad_(q_ + kGradientRows * padded_),
        weights_(grad_ + kGradientRows * padded_),
        scores_(weights_ + kGradientRows * kAttentionBlock),
        k_lanes_(scores_ + kGradientRows * kAttentionBlock),
        v_lanes_(k_lanes_ + kAttentionBlock * padded_),
        k_rows_(v_lanes_ + kAttentionBlock * padded_),
        k_sums_(k_rows_ + kAttentionBlock * padded_),
        v_sums_(k_sums_ + kAttentionBlock * padded_),
        rows_(v_sums_ + kAttentionBlock * padded_),
        scales_(rows_ + kFloats * padded_),
        beta_sums_(scales_ + 2 * padded_),
        block{a_, beta_rows, beta_sums_ + beta_rows * kAttentionBlock, {}} {}

  /// Adds what rows [begin, end) give and get by the block that was advanced to.
  void run(int64_t begin, int64_t end) {
    pack();
    for (int64_t row = begin; row < end; row += kGradientRows) {
      const int64_t next = row + kGradientRows < end ? row + kGradientRows : end;
      if (block.end(next - 1) > 0) run_rows(row, next, args_.q + (row - begin) * padded_);
    }
    add_sums();
  }

 private:
  const AttentionGradient<T>& args_;
  const Attention<T>& a_;
  const int64_t padded_;
  float *const q_, *const grad_;                          // [kGradientRows][padded], q times scale
  float *const weights_, *const scores_;                  // [kGradientRows][kAttentionBlock]: and gradients
  float *const k_lanes_, *const v_lanes_;                 // [strip][channel][kStrip]
  float *const k_rows_, *const k_sums_, *const v_sums_;   // [kAttentionBlock][padded], k times scale
  float *const rows_, *const scales_, *const beta_sums_;  // for reading, and [beta_rows][kAttentionBlock]
  float log_sum_[kGradientRows], through_[kGradientRows];
  bool keys_wanted_ = false, masses_wanted_ = false;

 public:
  Block<T> block;

 private:
  void pack() {
    block.pack_beta();
    keys_wanted_ = masses_wanted_ = false;
    for (int64_t s = 0; s < block.num_segments; ++s) {
      const AttentionPartGradient& to = args_.parts[block.segments[s].part];
      keys_wanted_ = keys_wanted_ || to.k != nullptr || to.v != nullptr;
      masses_wanted_ = masses_wanted_ || to.beta != nullptr;
    }
    pack_rows(false);
    pack_rows(true);
    for (int64_t i = 0; i < kAttentionBlock * padded_; ++i) k_sums_[i] = v_sums_[i] = 0.0f;
    for (int64_t i = 0; i < block.beta_rows * kAttentionBlock; ++i) beta_sums_[i] = 0.0f;
  }

  void pack_rows(bool values) {
    RowReader<T> reader(values, a_.dim, padded_, scales_);
    const float* group[kFloats];
    block.for_lanes((block.lanes() + kStrip - 1) / kStrip * kStrip,
                    [&](int64_t lane, const AttentionPart<T>* part, int64_t key) {
                      const int64_t i = lane % kFloats, first = lane - i;
                      group[i] = reader.read(part, key, rows_ + i * padded_);
                      if (!values) {
                        for (int64_t e = 0; e < padded_; ++e)
                          k_rows_[lane * padded_ + e] = group[i][e] * a_.scale;
                      }
                      if (i == kFloats - 1)
                        pack_transposed(group, padded_, kStrip,
                                        (values ? v_lanes_ : k_lanes_) + first / kStrip * padded_ * kStrip +
                                            first % kStrip);
                    });
  }

  void read_rows(int64_t begin, int64_t end, int64_t whole) {
    for (int64_t r = 0; r < whole; ++r) {
      float *q = q_ + r * padded_, *grad = grad_ + r * padded_;
      const int64_t head = (begin + r) % a_.group, query = (begin + r) / a_.group;
      if (begin + r >= end) {
        for (int64_t e = 0; e < padded_; ++e) q[e] = grad[e] = 0.0f;
        log_sum_[r] = -kHidden, through_[r] = 0.0f;
        continue;
      }
      widen_row(a_.q + head * a_.q_head_stride + query * a_.q_stride, a_.dim, padded_, q);
      widen_row(args_.grad + head * args_.grad_head_stride + query * args_.grad_stride, a_.dim, padded_,
                grad);
      widen_row(a_.out + head * a_.out_head_stride + query * a_.out_stride, a_.dim, padded_, rows_);
      through_[r] = dot(grad, rows_, padded_);
      for (int64_t e = 0; e < padded_; ++e) q[e] *= a_.scale;
      const float log_sum = a_.log_sum[head * a_.queries + query];
      log_sum_[r] = log_sum == kHidden ? -kHidden : log_sum;  // no weights where nothing was seen
    }
  }

  void run_rows(int64_t begin, int64_t end, float* q_sums) {
    const int64_t whole = (end - begin + kTile - 1) / kTile * kTile, lanes = block.end(end - 1),
                  made = (lanes + kStrip - 1) / kStrip * kStrip;
    read_rows(begin, end, whole);
    int64_t first = 0;  // row that sees something
    for (int64_t r = 0; r < whole; r += kTile) {
      const int64_t last = begin + r + kTile < end ? begin + r + kTile - 1 : end - 1, seen = block.end(last);
      if (seen == 0) {
        first = r + kTile;
        continue;
      }
      int64_t n = 0;
      for (; n < seen; n += kStrip) weigh_strip(begin, r, n);
      for (int m = 0; m < kTile; ++m) {
        for (int64_t i = n; i < made; ++i)
          weights_[(r + m) * kAttentionBlock + i] = scores_[(r + m) * kAttentionBlock + i] = 0.0f;
      }
      hide_rows(begin, r, last);
      if (masses_wanted_) add_masses(begin, r, n);
      for (int64_t e = 0; e < a_.dim; e += kWide)
        add_product(scores_ + r * kAttentionBlock, kAttentionBlock, 1, k_rows_ + e, seen,
                    q_sums + r * padded_ + e, begin + r + kTile <= end ? kTile : end - begin - r);
    }
    if (!keys_wanted_) return;
    for (int64_t n = 0; n < lanes; n += kTile) {
      for (int64_t e = 0; e < a_.dim; e += kWide) {
        const int64_t from = first * kAttentionBlock + n, to = n * padded_ + e;
        add_product(scores_ + from, 1, kAttentionBlock, q_ + first * padded_ + e, whole - first, k_sums_ + to,
                    kTile);
        add_product(weights_ + from, 1, kAttentionBlock, grad_ + first * padded_ + e, whole - first,
                    v_sums_ + to, kTile);
      }
    }
  }

  /// Weights of a tile of rows over a strip of keys, and their scores' gradients.
  void weigh_strip(int64_t begin, int64_t r, int64_t n) const {
    Floats acc[kTile][kRegisters] = {};
    multiply(q_ + r * padded_, padded_, 1, k_lanes_ + n * padded_, kStrip, a_.dim, acc);
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
      const float* beta = block.beta + (begin + r + m) % block.beta_rows * kAttentionBlock + n;
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j) {
        const Floats weight =
            exp2_negative((acc[m][j] + load_bytes<Floats>(beta + j * kFloats) - log_sum_[r + m]) * kLog2E);
        __builtin_memcpy(weights_ + (r + m) * kAttentionBlock + n + j * kFloats, &weight, sizeof weight);
        acc[m][j] = Floats{};
      }
    }
    multiply(grad_ + r * padded_, padded_, 1, v_lanes_ + n * padded_, kStrip, a_.dim, acc);
#pragma GCC unroll 8
    for (int m = 0; m < kTile; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j) {
        const int64_t at = (r + m) * kAttentionBlock + n + j * kFloats;
        const Floats score = load_bytes<Floats>(weights_ + at) * (acc[m][j] - through_[r + m]);
        __builtin_memcpy(scores_ + at, &score, sizeof score);
      }
    }
  }

  void hide_rows(int64_t begin, int64_t r, int64_t last) const {
    for (int64_t s = 0; s < block.num_segments; ++s) {
      const Segment& segment = block.segments[s];
      if (block.visible(segment.part, begin + r) - segment.first >= segment.count) continue;
      for (int m = 0; m < kTile; ++m) {
        const int64_t row = begin + r + m < last ? begin + r + m : last,
                      there = block.visible(segment.part, row) - segment.first;
        for (int64_t i = there > 0 ? there : 0; i < segment.count; ++i) {
          const int64_t at = (r + m) * kAttentionBlock + segment.lane + i;
          weights_[at] = scores_[at] = 0.0f;
        }
      }
    }
  }

  void add_masses(int64_t begin, int64_t r, int64_t count) const {
    for (int m = 0; m < kTile; ++m) {
      float* to = beta_sums_ + (begin + r + m) % block.beta_rows * kAttentionBlock;
      const float* from = scores_ + (r + m) * kAttentionBlock;
      for (int64_t n = 0; n < count; ++n) to[n] += from[n];
    }
  }

  /// to[m] += sum_i a[m * a_row + i * a_step] b[i] over a strip of channels, for `rows` rows of a tile.
  void add_product(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t count, float* to,
                   int64_t rows) const {
    Floats acc[kTile][kWideRegisters] = {};
    multiply(a, a_row, a_step, b, padded_, count, acc);
    for (int m = 0; m < rows; ++m) {
      for (int j = 0; j < kWideRegisters; ++j) {
        float* at = to + m * padded_ + j * kFloats;
        const Floats sum = load_bytes<Floats>(at) + acc[m][j];
        __builtin_memcpy(at, &sum, sizeof sum);
      }
    }
  }

  void add_sums() const {
    block.for_lanes(0, [&](int64_t lane, const AttentionPart<T>* part, int64_t key) {
      if (part == nullptr) return;
      const AttentionPartGradient& to = args_.parts[part - a_.parts];
      const float *k = k_sums_ + lane * padded_, *v = v_sums_ + lane * padded_;
      for (int64_t e = 0; e < a_.dim && to.k != nullptr; ++e) to.k[key * a_.dim + e] += k[e];
      for (int64_t e = 0; e < a_.dim && to.v != nullptr; ++e) to.v[key * a_.dim + e] += v[e];
      for (int64_t h = 0; h < block.beta_rows && to.beta != nullptr; ++h)
        to.beta[(part->beta_stride == 0 ? 0 : h * part->keys) + key] +=
            beta_sums_[h * kAttentionBlock + lane];
    });
  }
};

template <class T>
void attention_gradient(const AttentionGradient<T>& args, int64_t begin, int64_t end, int64_t first,
                        int64_t last) {
  GradientBlock<T> gradient(args, beta_rows_of(args.attention));
  for (int64_t b = 0; b < last && gradient.block.advance(end - 1); ++b) {
    if (b >= first && gradient.block.num_segments > 0) gradient.run(begin, end);
  }
}

}  // namespace
}  // namespace focus::kernels::FOCUS_ISA
