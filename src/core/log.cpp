#include "focus/core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace focus::log {
namespace {
int current_verbosity = 1;

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = spdlog::stderr_color_mt("focus");
    made->set_pattern("[%H:%M:%S] %^%l%$ %v");
    return made;
  }();
  return *instance;
}
}  // namespace

void set_verbosity(int level) {
  current_verbosity = level;
  logger().set_level(level <= 0 ? spdlog::level::warn : level == 1 ? spdlog::level::info : spdlog::level::debug);
}
int verbosity() { return current_verbosity; }

void debug(const std::string& message) { logger().debug("{}", message); }
void info(const std::string& message) { logger().info("{}", message); }
void warn(const std::string& message) { logger().warn("{}", message); }
void error(const std::string& message) { logger().error("{}", message); }

}  // namespace focus::log
