// How the ranks of a fidelity run share its segments and their values.
#pragma once

#include <cstddef>
#include <cstdint>

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

/// `values` as rank `from` has them, [positions] of each measure, on every rank. One rank keeps its own.
report::PositionValues shared(distributed::Ranks& ranks, int64_t from, const report::PositionValues& values,
                              int64_t positions);

/// What methods hold and how long they took: the largest and the sums of all ranks.
void merge_costs(distributed::Ranks& ranks, report::FidelityResult& out);

}  // namespace focus::eval
