#include "focus/core/system_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "focus/core/error.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

/// The number behind "KEY" or "KEY:" in a file of such lines.
std::optional<int64_t> number_of(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t value = 0;
    if (words >> name && (name == key || name == key + ":") && words >> value) return value;
  }
  return std::nullopt;
}

std::optional<int64_t> kilobytes_of(const fs::path& path, const std::string& key) {
  const auto value = number_of(path, key);
  return value ? std::optional(*value * 1024) : std::nullopt;
}

std::optional<int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;  // "max" is no number: no limit
}

/// Names of the files of a version of control groups; an empty controller is version 2.
struct GroupFiles {
  const char *controller, *limit, *used, *idle_pages;
};
constexpr GroupFiles kVersions[] = {{"", "memory.max", "memory.current", "inactive_file"},
                                    {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}};

/// Folders of this process's control group, from its own up to the root.
std::vector<fs::path> group_folders(const fs::path& root, const std::string& controller) {
  std::vector<fs::path> out;
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // NUMBER:CONTROLLERS:PATH
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = concat(',', line.substr(first + 1, second - first - 1), ',');
    if (controller.empty() ? names != ",," : names.find(concat(',', controller, ',')) == std::string::npos) continue;
    const fs::path top = controller.empty() ? root / "sys/fs/cgroup" : root / "sys/fs/cgroup" / controller;
    // Inside a container the path may name folders that only the host sees; the root is then the container's own.
    for (fs::path below = fs::path(line.substr(second + 1)).relative_path(); !below.empty(); below = below.parent_path())
      out.push_back(top / below);
    out.push_back(top);
    if (controller.empty()) out.push_back(top / "unified");
  }
  return out;
}

void take_least(std::optional<int64_t>& least, int64_t value) { least = std::min(value, least.value_or(value)); }

}  // namespace

SystemMemory read_system_memory(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  SystemMemory out{kilobytes_of(meminfo, "MemTotal"), kilobytes_of(meminfo, "MemAvailable"), kilobytes_of(meminfo, "SwapTotal"), {}, {}};
  for (const GroupFiles& files : kVersions) {
    for (const fs::path& folder : group_folders(root, files.controller)) {
      const auto limit = number_in(folder / files.limit);
      // Version 1 writes "no limit" as a number near 2^63.
      if (!limit || *limit >= int64_t{1} << 60) continue;
      take_least(out.limit, *limit);
      const auto used = number_in(folder / files.used);
      if (!used) continue;
      const int64_t idle = number_of(folder / "memory.stat", files.idle_pages).value_or(0);
      take_least(out.left, std::max<int64_t>(*limit - *used + idle, 0));
    }
  }
  return out;
}

int64_t SystemMemory::usable() const {
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  return std::min(available.value_or(kUnknown), left.value_or(kUnknown));
}

ProcessMemory read_process_memory() {
  const fs::path status = "/proc/self/status";
  const auto bytes = [&](const char* key) { return kilobytes_of(status, key).value_or(0); };
  return {bytes("VmHWM"), bytes("RssAnon"), bytes("RssFile")};
}

}  // namespace focus
