#include "attention_match.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "focus/core/error.h"
#include "focus/ops/host_copy.h"
#include "held_out_check.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr int64_t kMostRounds = 16;       // of the pursuit: with a larger subset a round takes several keys
constexpr double kGramRidge = 1e-6;       // relative to the mean diagonal
constexpr double kValueRidge = 0.1;       // likewise
constexpr double kSmallestWeight = 1e-6;  // of a kept key: beta stays finite
// No key may stand for more than this many times its even share of the bases: on queries unlike the
// references a key with a huge weight takes nearly all attention. Measured on chr22, on segments that also
// chose this bound: without one attention matching loses most of what it gains.
constexpr double kMostEvenShares = 2.0;

Tensor with_ridge(const Tensor& gram, double relative) {
  const Tensor mean = gram.diagonal(0, -2, -1).mean(-1).unsqueeze(-1).unsqueeze(-1);
  return gram + (mean * relative + 1e-12) * at::eye(gram.size(-1), gram.options());
}

Tensor columns(const Tensor& share_BGRN, const Tensor& index_BGS) {
  return share_BGRN.gather(3, index_BGS.unsqueeze(2).expand({-1, -1, share_BGRN.size(2), -1}));
}

struct Subset {
  Tensor index;    // [B, G, S]
  Tensor weights;  // [B, G, S]
};

/// Keys whose weighted shares sum to one, the whole, for every reference.
Subset pursue(const Tensor& share_BGRN, int64_t count) {
  const Tensor length = share_BGRN.norm(2, 2) + 1e-12;  // [B, G, n]
  Tensor residual =
      at::ones({share_BGRN.size(0), share_BGRN.size(1), share_BGRN.size(2), 1}, share_BGRN.options());
  Tensor taken = at::zeros_like(length, length.options().dtype(at::kBool));
  Subset out;
  const int64_t rounds = std::min(count, kMostRounds);
  const double most = kMostEvenShares * static_cast<double>(share_BGRN.size(3)) / static_cast<double>(count);
  for (int64_t round = 0, have = 0; round < rounds; ++round) {
    const int64_t more = (round + 1) * count / rounds - have;
    const Tensor fit = at::matmul(share_BGRN.transpose(-1, -2), residual).squeeze(-1) / length;
    const Tensor next =
        std::get<1>(at::topk(fit.masked_fill(taken, -std::numeric_limits<double>::infinity()), more, -1));
    out.index = out.index.defined() ? at::cat({out.index, next}, -1) : next;
    taken = taken.scatter(-1, next, true);
    have += more;
    const Tensor chosen = columns(share_BGRN, out.index);
    out.weights = bounded_least_squares(with_ridge(at::matmul(chosen.transpose(-1, -2), chosen), kGramRidge),
                                        chosen.sum(2), most);
    residual = 1.0 - at::matmul(chosen, out.weights.unsqueeze(-1));
  }
  const auto [sorted, order] = out.index.sort(-1);
  return {sorted, out.weights.gather(-1, order).clamp_min(kSmallestWeight)};
}

}  // namespace

Tensor bounded_least_squares(const Tensor& gram, const Tensor& rhs, double upper) {
  constexpr int kMostSweeps = 500;
  constexpr double kConverged = 1e-10;
  const Tensor g = ops::to_host(gram.to(at::kDouble)).contiguous(),
               b = ops::to_host(rhs.to(at::kDouble)).contiguous();
  const int64_t size = b.size(-1), problems = size == 0 ? 0 : b.numel() / size;
  Tensor solution = at::zeros_like(b);
  for (int64_t p = 0; p < problems; ++p) {
    const double *gp = g.const_data_ptr<double>() + p * size * size,
                 *bp = b.const_data_ptr<double>() + p * size;
    double* w = solution.mutable_data_ptr<double>() + p * size;
    // Coordinate descent: each step is the exact minimum along one axis, cut off at the bounds.
    for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
      double largest = 0, moved = 0;
      for (int64_t i = 0; i < size; ++i) {
        double gradient = -bp[i];
        for (int64_t j = 0; j < size; ++j) gradient += gp[i * size + j] * w[j];
        const double next = std::clamp(w[i] - gradient / gp[i * size + i], 0.0, upper);
        moved = std::max(moved, std::abs(next - w[i]));
        largest = std::max(largest, next);
        w[i] = next;
      }
      if (moved <= kConverged * largest) break;
    }
  }
  return ops::from_host(solution, rhs.device()).to(rhs.scalar_type());
}

Entries attention_match(const ClosedSpan& span, int64_t room) {
  if (room == span.num_bases()) return raw_entries(span);
  const Tensor references = future_queries(span), scores = scores_of(references, span.k);
  const Tensor share = at::softmax(scores, -1);
  const Subset subset = pursue(share, room);
  Entries out = raw_entries_per_head(span, subset.index);
  const Tensor beta = subset.weights.log();

  const Tensor v = span.v.to(references.scalar_type()), own = out.v.to(references.scalar_type());
  const Tensor mixing = at::softmax(columns(scores, subset.index) + beta.unsqueeze(2), -1);  // [B, G, R, S]
  const Tensor missing = at::matmul(share, v) - at::matmul(mixing, own);
  const Tensor gram = with_ridge(at::matmul(mixing.transpose(-1, -2), mixing), kValueRidge);
  out.v = (own + solved(gram, at::matmul(mixing.transpose(-1, -2), missing))).to(span.v.scalar_type());
  out.beta = beta.to(at::kFloat);
  check_entries(span, {}, subset.index, FittedUnitConfig{}, out);
  return out;
}

}  // namespace focus::compress
