// What the ranks of one machine share out among themselves.
#pragma once

#include <cstdint>
#include <string>

#include "common.h"
#include "focus/distributed/ranks.h"

namespace focus::cli {

/// Ranks of one machine share its cores and take a GPU each; only rank 0 reports progress. `threads` and `device` are those of the run's
/// configuration; what the command line says of them has been applied to `device`, not yet to `threads`.
void apply_rank(const distributed::RankEnvironment& environment, int64_t& threads, std::string& device, CommonOptions& common);

}  // namespace focus::cli
