#include "focus/core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <mutex>
#include <utility>

#include "terminal_line.h"

namespace focus::log {
namespace {
int current_verbosity = 1;
std::string current_label;

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_color_mt("focus");
    made->set_pattern("[%H:%M:%S] %^%l%$ %v");
    return made;
  }();
  return *instance;
}

void write(spdlog::level::level_enum level, const std::string& message) {
  if (!logger().should_log(level)) return;
  TerminalLine& line = TerminalLine::instance();
  const std::lock_guard lock(line.mutex);
  if (std::exchange(line.bar_shown, false)) std::fputs(kClearLine, stderr);
  logger().log(level, "{}{}", current_label, message);
}
}  // namespace

void set_verbosity(int level) {
  current_verbosity = level;
  logger().set_level(level <= 0   ? spdlog::level::warn
                     : level == 1 ? spdlog::level::info
                                  : spdlog::level::debug);
}
int verbosity() { return current_verbosity; }
void set_label(const std::string& label) { current_label = label; }

void debug(const std::string& message) { write(spdlog::level::debug, message); }
void info(const std::string& message) { write(spdlog::level::info, message); }
void warn(const std::string& message) { write(spdlog::level::warn, message); }
void error(const std::string& message) { write(spdlog::level::err, message); }

}  // namespace focus::log
