// The table of a fidelity run for a terminal.
#pragma once

#include <string>

#include "focus/report/fidelity_result.h"

namespace focus::report {

/// The main table as aligned plain text for a terminal: one line per method, over the positions behind the
/// first boundary (over all positions, and saying so, when no segment is longer than a window).
std::string fidelity_table(const FidelityResult& result);

}  // namespace focus::report
