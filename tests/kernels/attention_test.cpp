#include "focus/kernels/cuda/attention.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/buffer.h"

namespace focus::testing {
namespace {

namespace cuda = kernels::cuda;
using cuda::RowStrides;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kGap = 8;  // channels between rows that hold NaN and must not be read

enum class Masses { none, shared, per_query_head, hide_all };
struct PartShape {
  int64_t keys;
  Masses masses = Masses::none;
  bool causal = false;
  int64_t keys_there = -1;  // as the device says, if not -1; the others are NaN
  int bits = 0;             // of codes in place of bf16
  int64_t key_group =
      0;  // keys whose codes share scales, channel by channel; 0: every key has one of its own
};
struct AttentionShape {
  int64_t batch, heads, key_heads, queries, dim;
  std::vector<PartShape> parts;
};
void PrintTo(const AttentionShape& s, std::ostream* out) {
  *out << "B" << s.batch << " H" << s.heads << " G" << s.key_heads << " Q" << s.queries << " E" << s.dim;
  for (const PartShape& p : s.parts) {
    *out << " + " << p.keys << (p.causal ? " causal" : "");
    if (p.keys_there >= 0) *out << " (" << p.keys_there << " there)";
    if (p.bits > 0) *out << " in " << p.bits << " bits, groups of " << p.key_group;
    if (p.masses != Masses::none) *out << " masses " << static_cast<int>(p.masses);
  }
}

/// [batch, position, head, channel], with a gap of NaN after each row.
template <class T>
struct Rows {
  Buffer<T> data;
  RowStrides strides;
  Rows(int64_t batch, int64_t heads, int64_t rows, int64_t dim)
      : data(std::max<int64_t>(1, batch * rows * heads * (dim + kGap))),
        strides{rows * heads * (dim + kGap), dim + kGap, heads * (dim + kGap)} {}
  T& at(int64_t b, int64_t h, int64_t i, int64_t e) {
    return data[b * strides.batch + h * strides.head + i * strides.row + e];
  }
};

/// Codes and their scales, for rows that hold what they mean.
struct Codes {
  Buffer<uint8_t> codes;
  Buffer<uint16_t> low, step;
  Buffer<int32_t> scale_row;
  cuda::QuantisedRows rows;

  Codes(Rows<Bf16>& meant, int64_t batch, int64_t heads, int64_t keys, int64_t dim, int bits, int64_t group,
        std::mt19937& random)
      : codes(batch * heads * keys * dim * bits / 8),
        low(batch * heads * keys * (group > 0 ? dim : 1)),
        step(low.size()),
        scale_row(keys) {
    const int64_t width = group > 0 ? dim : 1;
    rows = {.codes = codes,
            .strides = {heads * keys * dim * bits / 8, keys * dim * bits / 8, dim * bits / 8},
            .low = low,
            .step = step,
            .scale_strides = {heads * keys * width, keys * width, width},
            .scale_row = group > 0 ? scale_row.get() : nullptr,
            .per_channel = group > 0};
    for (int64_t j = 0; j < keys; ++j) scale_row[j] = static_cast<int32_t>(group > 0 ? j / group : j);
    for (int64_t i = 0; i < low.size(); ++i) {
      // Negative ones from -2 to -0.5, and the smallest number of all; steps that reach about 2 from there.
      low[i] = i % 5 == 4 ? uint16_t{1} : static_cast<uint16_t>(0xb800 + random() % 0x800);
      step[i] = static_cast<uint16_t>((bits == 8 ? 7 : 11) << 10 | random() % 0x400);
    }
    for (int64_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(random());
    for (int64_t n = 0; n < batch * heads * keys; ++n) {
      for (int64_t c = 0; c < dim; ++c) {
        const uint8_t byte = codes[(n * dim + c) * bits / 8];
        const int code = bits == 8 ? byte : c % 2 == 0 ? byte & 15 : byte >> 4;
        const int64_t scale = (n / keys * keys + scale_row[n % keys]) * width + (group > 0 ? c : 0);
        set(meant.at(n / keys / heads, n / keys % heads, n % keys, c),
            static_cast<float>(code * half(step[scale]) + half(low[scale])));
      }
    }
  }
  static double half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, digits = bits & 0x3ff;
    const double size = exponent == 0 ? std::ldexp(digits, -24) : std::ldexp(1024 + digits, exponent - 25);
    return bits & 0x8000 ? -size : size;
  }
};

template <class T>
struct TestPart {
  Rows<T> k, v;
  Buffer<float> beta;
  Buffer<int32_t> there;
  int64_t keys, beta_heads;
  bool causal, has_beta;
  std::unique_ptr<Codes> k_codes, v_codes;
};

template <class T>
class Problem {
 public:
  explicit Problem(const AttentionShape& shape)
      : s_(shape),
        q_(s_.batch, s_.heads, s_.queries, s_.dim),
        out_(s_.batch, s_.heads, s_.queries, s_.dim),
        grad_(s_.batch, s_.heads, s_.queries, s_.dim),
        log_sum_(s_.batch * s_.heads * s_.queries) {
    fill(q_, s_.heads, s_.queries, 2);
    fill(grad_, s_.heads, s_.queries, 1);
    for (const PartShape& p : s_.parts) {
      const int64_t there = p.keys_there < 0 ? p.keys : p.keys_there,
                    beta_heads = p.masses == Masses::per_query_head ? s_.heads : s_.key_heads;
      parts_.push_back(std::unique_ptr<TestPart<T>>(new TestPart<T>{
          Rows<T>(s_.batch, s_.key_heads, p.keys, s_.dim), Rows<T>(s_.batch, s_.key_heads, p.keys, s_.dim),
          Buffer<float>(std::max<int64_t>(1, s_.batch * beta_heads * p.keys)), Buffer<int32_t>(1), there,
          beta_heads, p.causal, p.masses != Masses::none}));
      TestPart<T>& part = *parts_.back();
      part.there[0] = static_cast<int32_t>(there);
      fill(part.k, s_.key_heads, there, 2);
      fill(part.v, s_.key_heads, there, 1);
      if constexpr (sizeof(T) == sizeof(Bf16)) {
        const auto codes = [&](Rows<Bf16>& rows, int64_t group) {
          return std::make_unique<Codes>(rows, s_.batch, s_.key_heads, p.keys, s_.dim, p.bits, group,
                                         random_);
        };
        if (p.bits > 0) part.k_codes = codes(part.k, p.key_group), part.v_codes = codes(part.v, 0);
      }
      std::uniform_real_distribution<double> mass(-3, 3);
      for (int64_t i = 0; i < s_.batch * beta_heads * p.keys; ++i) {
        const bool hidden = p.masses == Masses::hide_all || i % 7 == 3;
        if (i % p.keys < there)
          part.beta[i] = hidden ? -std::numeric_limits<float>::infinity() : static_cast<float>(mass(random_));
      }
    }
  }

  cuda::Attention<T> arguments() {
    cuda::Attention<T> a{.q = q_.data,
                         .out = out_.data,
                         .log_sum = log_sum_,
                         .q_strides = q_.strides,
                         .out_strides = out_.strides,
                         .batch = s_.batch,
                         .heads = s_.heads,
                         .key_heads = s_.key_heads,
                         .queries = s_.queries,
                         .dim = s_.dim,
                         .scale = scale(),
                         .num_parts = static_cast<int>(parts_.size())};
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      TestPart<T>& part = *parts_[p];
      const PartShape& shape = s_.parts[p];
      a.parts[p] = {.k = part.k.data,
                    .v = part.v.data,
                    .k_strides = part.k.strides,
                    .v_strides = part.v.strides,
                    .keys = shape.keys,
                    .keys_on_device = shape.keys_there < 0 ? nullptr : part.there.get(),
                    .beta = part.has_beta ? part.beta.get() : nullptr,
                    .beta_strides = {part.beta_heads * shape.keys, shape.keys, 1},
                    .beta_per_query_head = shape.masses == Masses::per_query_head,
                    .causal = part.causal};
      if (part.k_codes != nullptr) {
        a.parts[p].k = a.parts[p].v = nullptr;
        a.parts[p].bits = shape.bits;
        a.parts[p].k_codes = part.k_codes->rows, a.parts[p].v_codes = part.v_codes->rows;
      }
    }
    a.max_splits = max_splits_;
    return a;
  }

  void forward(int64_t max_splits = 0) {
    max_splits_ = max_splits;
    const cuda::Attention<T> a = arguments();
    Buffer<float> workspace(cuda::attention_workspace(a));
    cuda::attention_forward(a, workspace, nullptr);
    finish_kernels();
  }

  /// Exact results, and what their rounding goes by.
  struct Exact {
    std::vector<double> weight;  // of all keys, part after part
    std::vector<double> out, out_size;
    double log_sum = -kInfinity;
  };
  Exact exact(int64_t b, int64_t h, int64_t i) {
    Exact e;
    e.out.assign(static_cast<std::size_t>(s_.dim), 0), e.out_size = e.out;
    const int64_t g = h / (s_.heads / s_.key_heads);
    double most = -kInfinity, sum = 0;
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      TestPart<T>& part = *parts_[p];
      for (int64_t j = 0; j < part.keys; ++j) {
        double score = 0;
        for (int64_t c = 0; c < s_.dim; ++c) score += value(q_.at(b, h, i, c)) * value(part.k.at(b, g, j, c));
        score = score * static_cast<double>(scale()) + beta(p, b, h, j);
        if (part.causal && j > i + part.keys - s_.queries) score = -kInfinity;
        e.weight.push_back(score);
        most = std::max(most, score);
      }
    }
    if (most == -kInfinity) {
      for (double& w : e.weight) w = 0;
      return e;
    }
    for (double& w : e.weight) sum += w = std::exp(w - most);
    std::size_t n = 0;
    for (auto& part : parts_) {
      for (int64_t j = 0; j < part->keys; ++j, ++n) {
        e.weight[n] /= sum;
        for (int64_t c = 0; c < s_.dim; ++c) {
          const double term = e.weight[n] * value(part->v.at(b, g, j, c));
          e.out[static_cast<std::size_t>(c)] += term;
          e.out_size[static_cast<std::size_t>(c)] += std::abs(term);
        }
      }
    }
    e.log_sum = (most + std::log(sum)) / std::log(2.0);
    return e;
  }

  void check_forward() {
    for (int64_t b = 0; b < s_.batch; ++b)
      for (int64_t h = 0; h < s_.heads; ++h)
        for (int64_t i = 0; i < s_.queries; ++i) {
          const Exact e = exact(b, h, i);
          const std::string where = at(b, h, i);
          const float got = log_sum_[(b * s_.heads + h) * s_.queries + i];
          if (e.log_sum == -kInfinity) {
            EXPECT_EQ(got, -std::numeric_limits<float>::infinity()) << where;
          } else {
            expect_within(got, e.log_sum, kScores, "log_sum" + where);
          }
          for (int64_t c = 0; c < s_.dim; ++c) {
            const auto k = static_cast<std::size_t>(c);
            // Weights and the result are rounded to T each, scores and sums to fp32.
            const double bound =
                kRounding<T> * (std::abs(e.out[k]) + 1.01 * e.out_size[k]) + kScores * e.out_size[k];
            expect_within(value(out_.at(b, h, i, c)), e.out[k], bound, "out" + where);
          }
        }
    for (int64_t n = 0; n < out_.data.size(); ++n) {
      if (n % (s_.dim + kGap) < s_.dim) continue;
      EXPECT_TRUE(std::isnan(value(out_.data[n]))) << "written at " << n;
    }
  }

  void check_backward() {
    forward();
    Buffer<T> dq(s_.batch * s_.heads * s_.queries * s_.dim);
    std::vector<std::unique_ptr<Buffer<T>>> dk, dv;
    std::vector<std::unique_ptr<Buffer<float>>> dbeta;
    Buffer<float> workspace(s_.batch * s_.heads * s_.queries);
    cuda::AttentionGradients<T> g{
        .grad = grad_.data, .grad_strides = grad_.strides, .q = dq, .workspace = workspace};
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      const int64_t keys = s_.batch * s_.key_heads * s_.parts[p].keys;
      dk.push_back(std::make_unique<Buffer<T>>(keys * s_.dim));
      dv.push_back(std::make_unique<Buffer<T>>(keys * s_.dim));
      dbeta.push_back(std::make_unique<Buffer<float>>(s_.batch * parts_[p]->beta_heads * s_.parts[p].keys));
      g.k[p] = *dk[p], g.v[p] = *dv[p];
      g.beta[p] = parts_[p]->has_beta ? dbeta[p]->get() : nullptr;
    }
    cuda::attention_backward(arguments(), g, nullptr);
    finish_kernels();

    struct Sum {
      double value = 0, size = 0;
      void add(double term, double by) { value += term, size += by; }
    };
    std::vector<std::vector<Sum>> ek, ev, eb;
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      ek.emplace_back(dk[p]->size()), ev.emplace_back(dv[p]->size()), eb.emplace_back(dbeta[p]->size());
    }
    const int64_t group = s_.heads / s_.key_heads;
    for (int64_t b = 0; b < s_.batch; ++b)
      for (int64_t h = 0; h < s_.heads; ++h)
        for (int64_t i = 0; i < s_.queries; ++i) {
          const Exact e = exact(b, h, i);
          const int64_t kh = h / group;
          double through = 0, through_size = 0;  // sum of weights' gradients, by the output
          std::vector<Sum> eq(static_cast<std::size_t>(s_.dim));
          for (int64_t c = 0; c < s_.dim; ++c) {
            const double term = value(grad_.at(b, h, i, c)) * e.out[static_cast<std::size_t>(c)];
            through += term;
            through_size += std::abs(value(grad_.at(b, h, i, c))) * e.out_size[static_cast<std::size_t>(c)];
          }
          std::size_t n = 0;
          for (std::size_t p = 0; p < parts_.size(); ++p) {
            TestPart<T>& part = *parts_[p];
            for (int64_t j = 0; j < part.keys; ++j, ++n) {
              double reach = 0, reach_size = 0;
              for (int64_t c = 0; c < s_.dim; ++c) {
                const double term = value(grad_.at(b, h, i, c)) * value(part.v.at(b, kh, j, c));
                reach += term, reach_size += std::abs(term);
              }
              const double ds = e.weight[n] * (reach - through),
                           ds_size = e.weight[n] * (reach_size + through_size), scaled = scale();
              const int64_t row = ((b * s_.key_heads + kh) * part.keys + j) * s_.dim;
              for (int64_t c = 0; c < s_.dim; ++c) {
                const double q = value(q_.at(b, h, i, c)), k = value(part.k.at(b, kh, j, c)),
                             d = value(grad_.at(b, h, i, c));
                eq[static_cast<std::size_t>(c)].add(ds * k * scaled, ds_size * std::abs(k) * scaled);
                ek[p][static_cast<std::size_t>(row + c)].add(ds * q * scaled, ds_size * std::abs(q) * scaled);
                ev[p][static_cast<std::size_t>(row + c)].add(e.weight[n] * d, e.weight[n] * std::abs(d));
              }
              const int64_t beta_head = part.beta_heads == s_.heads ? h : kh;
              eb[p][static_cast<std::size_t>((b * part.beta_heads + beta_head) * part.keys + j)].add(ds,
                                                                                                     ds_size);
            }
          }
          for (int64_t c = 0; c < s_.dim; ++c) {
            const Sum& sum = eq[static_cast<std::size_t>(c)];
            near(value(dq[((b * s_.heads + h) * s_.queries + i) * s_.dim + c]), sum.value, sum.size,
                 "dq" + at(b, h, i));
          }
        }
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      const std::string of = " of part " + std::to_string(p) + " at ";
      for (int64_t n = 0; n < dk[p]->size(); ++n) {
        const auto m = static_cast<std::size_t>(n);
        near(value((*dk[p])[n]), ek[p][m].value, ek[p][m].size, "dk" + of + std::to_string(n));
        near(value((*dv[p])[n]), ev[p][m].value, ev[p][m].size, "dv" + of + std::to_string(n));
      }
      for (int64_t n = 0; n < dbeta[p]->size() && parts_[p]->has_beta; ++n) {
        const auto m = static_cast<std::size_t>(n);
        near((*dbeta[p])[n], eb[p][m].value, eb[p][m].size, "dbeta" + of + std::to_string(n));
      }
    }
  }

  Rows<T>& q() { return q_; }
  Rows<T>& out() { return out_; }
  TestPart<T>& part(std::size_t p) { return *parts_[p]; }

 private:
  static constexpr double kScores = 4e-6;  // of scores up to about 16, and of sums

  float scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(s_.dim))); }
  double beta(std::size_t p, int64_t b, int64_t h, int64_t j) {
    TestPart<T>& part = *parts_[p];
    if (!part.has_beta) return 0;
    const int64_t head = part.beta_heads == s_.heads ? h : h / (s_.heads / s_.key_heads);
    return static_cast<double>(part.beta[(b * part.beta_heads + head) * s_.parts[p].keys + j]);
  }
  static std::string at(int64_t b, int64_t h, int64_t i) {
    return " of batch " + std::to_string(b) + " head " + std::to_string(h) + " query " + std::to_string(i);
  }
  // The weight's gradient, the gradient through the output, that output, and the result are rounded to T.
  static void near(double got, double expected, double size, const std::string& where) {
    expect_within(got, expected, 1.01 * kRounding<T> * (std::abs(expected) + 2 * size) + 2 * kScores * size,
                  where);
  }
  void fill(Rows<T>& rows, int64_t heads, int64_t count, double size) {
    std::uniform_real_distribution<double> draw(-size, size);
    for (int64_t b = 0; b < s_.batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < count; ++i)
          for (int64_t c = 0; c < s_.dim; ++c) set(rows.at(b, h, i, c), draw(random_));
  }

  AttentionShape s_;
  int64_t max_splits_ = 0;
  std::mt19937 random_{7};
  Rows<T> q_, out_, grad_;
  Buffer<float> log_sum_;
  std::vector<std::unique_ptr<TestPart<T>>> parts_;
};

using AttentionKernelTestOfAnyShape = KernelTest;
class AttentionKernelTest : public KernelTestWithParam<AttentionShape> {};

bool has_codes(const AttentionShape& shape) {
  return std::any_of(shape.parts.begin(), shape.parts.end(), [](const PartShape& p) { return p.bits > 0; });
}

TEST_P(AttentionKernelTest, ForwardEqualsTheDefinition) {
  // Each block all keys, a share, or a tile of them.
  for (const int64_t max_splits : {1, 2, 0}) {
    if (!has_codes(GetParam())) {
      Problem<float> single(GetParam());
      single.forward(max_splits), single.check_forward();
    }
    Problem<Bf16> half(GetParam());
    half.forward(max_splits), half.check_forward();
  }
}

TEST_P(AttentionKernelTest, BackwardEqualsTheDefinition) {
  for (const PartShape& p : GetParam().parts) {
    if (p.keys_there >= 0 || p.bits > 0) GTEST_SKIP() << "gradients are for plain keys of a known number";
  }
  Problem<float>(GetParam()).check_backward();
  Problem<Bf16>(GetParam()).check_backward();
}

TEST_F(AttentionKernelTestOfAnyShape, BatchesBeyondAGridsSecondDimension) {
  Problem<Bf16> problem({65537, 1, 1, 1, 1, {{1, Masses::none, true}}});
  problem.forward(), problem.check_forward();
}

constexpr PartShape open(int64_t keys) { return {keys, Masses::none, true}; }
INSTANTIATE_TEST_SUITE_P(
    OddSizes, AttentionKernelTest,
    ::testing::Values(
        // Without tensor cores.
        AttentionShape{1, 1, 1, 1, 2, {}}, AttentionShape{1, 1, 1, 1, 1, {open(1)}},
        AttentionShape{2, 2, 2, 17, 16, {open(17)}},
        AttentionShape{1, 2, 1, 9, 40, {{33, Masses::shared}, open(41)}},
        AttentionShape{1, 4, 2, 5, 136, {{35, Masses::per_query_head}, {3, Masses::none}, open(70)}},
        // With tensor cores, few rows and many.
        AttentionShape{1, 1, 1, 1, 64, {open(1)}},
        AttentionShape{2, 3, 3, 1, 128, {{70, Masses::shared}, open(5)}},
        AttentionShape{1, 4, 2, 7, 64, {{130, Masses::shared}, {65, Masses::none}, open(64)}},
        AttentionShape{1, 4, 2, 3, 128, {{65, Masses::per_query_head}, open(80)}},
        AttentionShape{1, 1, 1, 17, 128, {open(17)}},
        AttentionShape{1, 2, 1, 67, 64, {{37, Masses::shared}, open(150)}},
        AttentionShape{1, 1, 1, 130, 128, {{33, Masses::shared}, {64, Masses::none}, open(131)}},
        AttentionShape{1, 2, 1, 20, 128, {{40, Masses::per_query_head}, open(20)}},
        AttentionShape{1, 1, 1, 3, 64, {{40, Masses::hide_all}}},
        AttentionShape{1, 1, 1, 40, 128, {{70, Masses::hide_all}}},
        AttentionShape{1, 1, 1, 2, 8, {{70, Masses::hide_all}}},
        // Keys that the device counts.
        AttentionShape{1, 2, 2, 1, 128, {{100, Masses::shared, false, 67}, {90, Masses::none, true, 1}}},
        AttentionShape{1, 2, 2, 1, 64, {{700, Masses::shared, false, 0}, {90, Masses::none, true, 90}}},
        AttentionShape{
            1,
            2,
            2,
            2,
            12,
            {{100, Masses::shared, false, 67}, {50, Masses::none, false, 0}, {90, Masses::none, true, 40}}},
        // Keys and values in codes.
        AttentionShape{1, 2, 2, 1, 128, {{70, Masses::shared, false, -1, 8, 0}, open(9)}},
        AttentionShape{2, 2, 1, 3, 64, {{70, Masses::shared, false, -1, 4, 32}, open(9)}},
        AttentionShape{1, 2, 1, 20, 64, {{70, Masses::none, false, -1, 8, 20}, open(20)}},
        AttentionShape{1, 1, 1, 70, 128, {{67, Masses::shared, false, -1, 4, 0}, open(90)}}));

}  // namespace
}  // namespace focus::testing
