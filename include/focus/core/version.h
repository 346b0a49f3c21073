// Which focus this is; written into every run folder and output file.
#pragma once

#include <string>

namespace focus {

/// "0.1.0".
const char* version();
/// Short commit hash, "+dirty" when the sources differed from it, "unknown" when built outside a git
/// checkout.
const char* git_hash();
/// "focus 0.1.0 (1a2b3c4d5e6f)".
std::string version_line();

}  // namespace focus
