#include "log_mass_fit.h"

#include <cmath>
#include <limits>

#include "focus/compress/plan/config.h"
#include "span_entries.h"

namespace focus::compress {
namespace {

using at::Tensor;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kBetaRidge = 1e-3;
constexpr double kFaintest =
    -40.0;  // log of the share of the mass that a group without items is given: a fit needs a number

}  // namespace

FittedKeys regress_keys(const Tensor& references_BGRE, const Tensor& mean_BGME, const Tensor& log_mass_BGRM,
                        double ridge) {
  const Tensor& q = references_BGRE;
  const int64_t dim = q.size(3);
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  // Unknowns are the key's shift from the mean and beta.
  const Tensor residual = log_mass_BGRM - at::matmul(q, mean_BGME.transpose(-1, -2)) * scale;
  const Tensor design = at::cat({q * scale, at::ones({q.size(0), q.size(1), q.size(2), 1}, q.options())}, -1);
  Tensor penalty = at::full({dim + 1}, ridge, q.options());
  penalty[dim] = kBetaRidge;
  const Tensor gram = at::matmul(design.transpose(-1, -2), design) + at::diag(penalty);
  const Tensor solution = solved(gram, at::matmul(design.transpose(-1, -2), residual));  // [B, G, E+1, m]
  return {mean_BGME + solution.narrow(2, 0, dim).transpose(-1, -2), solution.select(2, dim)};
}

Entries fit_log_mass(const Tensor& references_BGRE, const FitItems& items, const std::vector<Span>& groups,
                     FittedKey key) {
  const Tensor& q = references_BGRE;
  const int64_t dim = q.size(3);
  const Tensor k = items.k.to(q.scalar_type()), v = items.v.to(q.scalar_type());
  Tensor scores = scores_of(q, k);  // [B, G, R, n]
  const Tensor plain = scores;
  if (items.near.defined()) scores = scores.masked_fill(items.near, kLeftOut);
  if (items.log_mass.defined()) scores = scores + items.log_mass.to(q.scalar_type()).unsqueeze(2);
  const Tensor log_total = at::logsumexp(scores, -1, /*keepdim=*/true);
  const Tensor log_share = at::logsumexp(scores - log_total, 2);  // [B, G, n]: of all references together

  // Which items are there at all, [B, G, 1, n].
  const Tensor there = items.log_mass.defined()
                           ? items.log_mass.ne(-kInfinity).unsqueeze(2)
                           : at::ones({1, 1, 1, k.size(2)}, k.options().dtype(at::kBool));

  std::vector<Tensor> masses, means, values;
  for (const Span& group : groups) {
    const auto part = [&](const Tensor& t, int64_t axis) {
      return t.narrow(axis, group.begin, group.size());
    };
    masses.push_back(items.near.defined()
                         ? log_mass_of(part(plain, 3), part(there, 3), part(items.near, 1)).unsqueeze(-1)
                         : at::logsumexp(part(scores, 3), -1, true));
    const Tensor shares = part(log_share, 2);
    // Nothing is left of the group in some head: any mean will do.
    const Tensor none = shares.eq(-kInfinity).all(-1, true);
    values.push_back(at::matmul(at::softmax(shares.masked_fill(none, 0.0), -1).unsqueeze(2), part(v, 2)));
    if (key == FittedKey::free) {
      const Tensor weights =
          items.log_mass.defined()
              ? at::softmax(part(items.log_mass, 2).to(q.scalar_type()).masked_fill(none, 0.0), -1)
              : at::full_like(shares, 1.0 / static_cast<double>(group.size()));
      means.push_back(at::matmul(weights.unsqueeze(2), part(k, 2)));
    }
  }
  const Tensor summed = at::cat(masses, 3);
  const Tensor log_mass = at::where(summed.eq(-kInfinity), log_total + kFaintest, summed);  // [B, G, R, m]

  Entries out;
  Tensor fitted_key, beta;
  if (key == FittedKey::zero) {
    beta = log_mass.mean(2);
    fitted_key = at::zeros({k.size(0), k.size(1), static_cast<int64_t>(groups.size()), dim}, k.options());
  } else {
    const FittedKeys fit = regress_keys(q, at::cat(means, 2), log_mass, FittedUnitConfig{}.ridge);
    fitted_key = fit.key;
    beta = fit.beta;
  }
  out.k = fitted_key.to(items.k.scalar_type());
  out.v = at::cat(values, 2).to(items.v.scalar_type());
  out.beta = beta.to(at::kFloat);
  return out;
}

}  // namespace focus::compress
