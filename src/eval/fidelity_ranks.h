// How the ranks of a fidelity run share its segments and put their values together.
#pragma once

#include <cstddef>

#include "focus/data/segments.h"
#include "focus/distributed/ranks.h"
#include "focus/eval/fidelity.h"
#include "focus/report/fidelity_result.h"

namespace focus::eval {

/// Whether this rank measures segment s: they take turns.
bool is_own(const distributed::Ranks& ranks, std::size_t s);

/// ConfigError where ranks would measure different things. `backbone_digest` as in weights::LoadedModel.
void require_same_run(distributed::Ranks& ranks, const FidelityConfig& config,
                      const data::SegmentSample& sample, const std::string& backbone_digest);

/// Every rank's values go into the result of all: values bit by bit, the largest kept entries and bytes, the
/// sum of the times.
void merge(distributed::Ranks& ranks, report::FidelityResult& out);

}  // namespace focus::eval
