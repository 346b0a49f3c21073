// Entries fitted in closed form to the attention mass of groups of keys. Legend: B batch, G key/value heads,
// R reference queries, n items, m groups, E head dimension.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "focus/compress/memory/entries.h"
#include "focus/compress/plan/plan.h"

namespace focus::compress {

/// Keys [B, G, m, E] and betas [B, G, m].
struct FittedKeys {
  at::Tensor key, beta;
};

/// Ridge regression: the key near `mean` and the beta whose score q.key/sqrt(E) + beta is closest to the
/// log-mass that a group has for each reference q. `ridge` weighs the key's squared shift from the mean; beta
/// is all but unpenalised. Differentiable in all tensors, which have one floating type.
FittedKeys regress_keys(const at::Tensor& references_BGRE, const at::Tensor& mean_BGME,
                        const at::Tensor& log_mass_BGRM, double ridge);

/// What an entry can stand for: raw bases, or entries with a log-mass of their own.
struct FitItems {
  at::Tensor k, v;      // [B, G, n, E]
  at::Tensor log_mass;  // [B, G, n] added to the scores; -inf leaves an item out in that head; undefined = 0
  at::Tensor near;      // [R, n] bool: raw bases that a reference leaves out (near_own); undefined = none
};

enum class FittedKey {
  free,  // found by ridge regression around the mean key
  zero,  // the entry weighs the same for every query: beta is the mean log-mass
};

/// One entry per group: key and beta such that q.K/sqrt(E) + beta is close to the group's log-mass log sum_t
/// exp(q.k_t/sqrt(E) + log_mass_t) for the references q, by ridge regression; the value is the group's mean
/// under the attention that the references pay. Types are the items'; beta is fp32. Origins are left empty. A
/// group whose items are all left out in a head gets a mass of next to nothing there.
Entries fit_log_mass(const at::Tensor& references_BGRE, const FitItems& items,
                     const std::vector<Span>& groups, FittedKey key);

}  // namespace focus::compress
