#include "held_out_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr double kRounding = 1e-6;  // of the squared outputs: closer errors are equal

/// What queries read of some keys.
struct Reading {
  Tensor mean;      // [B, G, R, E]
  Tensor log_mass;  // [B, G, R, 1]
};
Reading read(const Tensor& scores_BGRN, const Tensor& v_BGNE) {
  const Tensor share = at::softmax(scores_BGRN, -1);
  return {at::matmul(share, v_BGNE), log_sum(scores_BGRN, share)};
}

Tensor together(const Reading& open, const Reading& past) {
  const Tensor share = at::sigmoid(past.log_mass + std::log(static_cast<double>(kCopies)) - open.log_mass);
  return open.mean + (past.mean - open.mean) * share;
}

/// One base of every two strides, none of them a reference of the fit where the stride allows it. Their
/// places between the references follow the golden ratio.
Tensor judging_bases(int64_t bases, int64_t stride) {
  constexpr double kGolden = 0.6180339887498949;
  std::vector<int64_t> out;
  for (int64_t i = 0; 2 * stride * i < bases; ++i) {
    const double turn = kGolden * static_cast<double>(i), place = turn - std::floor(turn);
    int64_t offset = static_cast<int64_t>(place * static_cast<double>(2 * stride));
    if (offset % stride == 0 && stride > 1) ++offset;
    const int64_t base = 2 * stride * i + offset;
    if (base < bases || out.empty()) out.push_back(std::min(base, bases - 1));
  }
  return at::tensor(out, at::kLong);
}

}  // namespace

void check_entries(const ClosedSpan& span, const Tensor& stands_for_BGN, const Tensor& made_of_BGM,
                   const FittedUnitConfig& config, Entries& fits) {
  Tensor worse;
  {
    const at::NoGradGuard guard;
    const auto type = compute_options(span.k);
    const Tensor k = span.k.to(type), v = span.v.to(type);
    const int64_t bases = span.num_bases();
    const int64_t stride = config.reference_stride;
    const Tensor& rows =
        span.kmers.list({bases, stride}, span.q.device(), [&] { return judging_bases(bases, stride); });
    const References judges = references(span, rows);
    const Tensor later = at::arange(bases, judges.own.options()).gt(judges.own.unsqueeze(1));  // [R, n]
    const double scale = 1.0 / std::sqrt(static_cast<double>(k.size(-1)));
    const auto scores_of = [&](const Tensor& queries, const Tensor& keys) {  // scaled where they are small
      return at::matmul(queries * scale, keys.to(type).transpose(-1, -2));
    };
    const Tensor open_scores = scores_of(own_queries(span, rows), k).masked_fill_(later, kNothing);
    const Tensor part = stands_for_BGN.defined() ? stands_for_BGN.unsqueeze(2) : at::ones_like(later);
    // Entries as fine as what a judge leaves out hold its own continuation almost by itself: then nothing is
    // left out.
    const bool fine = 2 * config.leave_out * fits.k.size(2) > bases;
    const Tensor near = near_own(judges, bases, fine ? 0 : config.leave_out), used = measured(part, near);
    const Reading open = read(open_scores, v);
    Reading past = read(scores_of(judges.q, k).masked_fill_(used.logical_not(), kNothing), v);
    past.log_mass.add_(log_unmeasured(part, used, k.scalar_type()).unsqueeze(-1));
    const Tensor target = together(open, past);
    Tensor entry_scores = scores_of(judges.q, fits.k) + fits.beta.to(type).unsqueeze(2);
    if (made_of_BGM.defined()) {
      const Tensor bases_of = made_of_BGM.clamp_min(0);
      const Tensor beside =
          near.index_select(1, bases_of.flatten()).unflatten(1, bases_of.sizes());  // [R, B, G, m]
      entry_scores = entry_scores.masked_fill(
          beside.permute({1, 2, 0, 3}).logical_and(made_of_BGM.ge(0).unsqueeze(2)), kSwitchedOff);
    }
    const Tensor by_entries = together(open, read(entry_scores, fits.v.to(type)));
    const auto error = [&](const Tensor& output) {
      return (output - target).square().sum({2, 3});
    };  // [B, G]
    worse = error(by_entries).gt(error(open.mean) + kRounding * target.square().sum({2, 3}));
  }
  fits.beta = fits.beta.masked_fill(worse.unsqueeze(-1), kSwitchedOff);
}

}  // namespace focus::compress
