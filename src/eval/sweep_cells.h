// From a sweep's configuration to its cells.
#pragma once

#include <string>
#include <vector>

#include "fidelity_cache.h"
#include "focus/eval/sweep.h"

namespace focus::eval {

/// The grid's settings, one per column.
std::vector<std::string> grid_keys(const SweepConfig& config);

/// Every cell of the grid in order, resolved and checked, with its digest. Opens every model. ConfigError
/// naming the cell; as the parts do.
std::vector<PlannedCell> plan_cells(const SweepConfig& config, const SweepOptions& options,
                                    const std::string& device, FidelityCache& cache);

/// A folder's name for what cells have in common that share segments.
std::string segments_id(const std::string& group);

/// "focus.k 25, window.size 512"
std::string cell_name(const std::vector<std::string>& keys, const std::vector<std::string>& values);

}  // namespace focus::eval
