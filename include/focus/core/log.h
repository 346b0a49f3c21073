// Logging facade: all messages go to stderr, so that stdout stays free for data.
#pragma once

#include <string>

namespace focus::log {

/// Threshold: 0 warnings and errors only (-q), 1 normal, 2 debug (-v).
void set_verbosity(int level);
int verbosity();
/// Put before every message from now on, e.g. "rank 1: "; "" for none.
void set_label(const std::string& label);

void debug(const std::string& message);
void info(const std::string& message);
void warn(const std::string& message);
void error(const std::string& message);

}  // namespace focus::log
