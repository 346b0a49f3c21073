#include "focus/core/system_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "control_groups.h"

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

/// Names of the files of a version of control groups; an empty controller is version 2.
struct GroupFiles {
  const char *controller, *limit, *used, *idle_pages;
};
constexpr GroupFiles kVersions[] = {
    {"", "memory.max", "memory.current", "inactive_file"},
    {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}};

void take_least(std::optional<int64_t>& least, int64_t value) {
  least = std::min(value, least.value_or(value));
}

}  // namespace

SystemMemory read_system_memory(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  SystemMemory out{kilobytes_of(meminfo, "MemTotal"),
                   kilobytes_of(meminfo, "MemAvailable"),
                   kilobytes_of(meminfo, "SwapTotal"),
                   {},
                   {}};
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

void prefer_huge_pages(void* memory, std::size_t num_bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kHuge = std::uintptr_t{2} << 20;
  if (num_bytes < kHuge) return;
  const auto first = reinterpret_cast<std::uintptr_t>(memory) / kHuge * kHuge,
             last = (reinterpret_cast<std::uintptr_t>(memory) + num_bytes + kHuge - 1) / kHuge * kHuge;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace focus
