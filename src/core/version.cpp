#include "focus/core/version.h"

#include "focus/core/error.h"
#include "git_hash.h"

namespace focus {

const char* version() { return FOCUS_VERSION; }
const char* git_hash() { return FOCUS_GIT_HASH; }
std::string version_line() { return concat("focus ", version(), " (", git_hash(), ")"); }

}  // namespace focus
