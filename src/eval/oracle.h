// The control 'oracle': how much could the run's number of entries hold, if they were the best for the very
// sequence that is measured?
#pragma once

#include <memory>
#include <string>

#include "fidelity_methods.h"

namespace focus::eval {

/// Starts from the entries that the closed form under `memory` makes of a sequence and moves keys, values and
/// betas by Adam so that the mean KL(full || compressed) over the positions after the first window falls; the
/// best of all iterates is streamed. Between the backbone's blocks only the inputs are kept for the backward
/// pass.
///
/// stream() throws ConfigError when no base sees an entry, CheckFailed when the divergence is not finite.
Method oracle_method(const std::string& name, const OracleConfig& config,
                     const std::shared_ptr<model::Backbone>& backbone, const compress::MemoryConfig& memory,
                     int64_t chunk);

}  // namespace focus::eval
