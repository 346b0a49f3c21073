#include "machine_facts.h"

#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "focus/core/error.h"

namespace focus::tools {
namespace {

namespace fs = std::filesystem;

/// The text behind "key" and a colon in a file of such lines; empty when there is none.
std::string value_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::optional<int64_t> meminfo_bytes(const std::string& key) {
  std::istringstream text(value_of("/proc/meminfo", key));
  int64_t kilobytes = 0;
  return text >> kilobytes ? std::optional(kilobytes * 1024) : std::nullopt;
}

std::optional<int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;  // "max" is no number: no limit
}

/// Folders of this process's control group for a controller, from its own up to the root; "" is version 2.
std::vector<fs::path> cgroup_folders(const std::string& controller) {
  std::vector<fs::path> out;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = concat(',', line.substr(first + 1, second - first - 1), ',');
    if (controller.empty() ? names != ",," : names.find(concat(',', controller, ',')) == std::string::npos) continue;
    const fs::path root = controller.empty() ? fs::path("/sys/fs/cgroup") : fs::path("/sys/fs/cgroup") / controller;
    // Inside a container the path may name folders that only the host sees; the root is then the container's own.
    for (fs::path below = fs::path(line.substr(second + 1)).relative_path(); !below.empty(); below = below.parent_path())
      out.push_back(root / below);
    out.push_back(root);
    if (controller.empty()) out.push_back(root / "unified");
  }
  return out;
}

Facts optional_bytes(std::optional<int64_t> value) { return value ? Facts(*value) : Facts(nullptr); }

}  // namespace

std::set<std::string> processor_flags() {
  std::istringstream text(value_of("/proc/cpuinfo", "flags"));
  std::set<std::string> out;
  for (std::string flag; text >> flag;) out.insert(flag);
  return out;
}

Facts processor_facts() {
  const std::set<std::string> flags = processor_flags();
  std::string sets;
  for (const char* flag : {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16"}) {
    if (flags.contains(flag)) sets += concat(sets.empty() ? "" : " ", flag);
  }
  cpu_set_t allowed;
  Facts out = {{"model", value_of("/proc/cpuinfo", "model name")}, {"cores", std::thread::hardware_concurrency()}};
  out["cores_allowed"] = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? Facts(CPU_COUNT(&allowed)) : Facts(nullptr);
  out["instruction_sets"] = sets;
  return out;
}

std::optional<int64_t> cgroup_memory_limit() {
  std::optional<int64_t> least;
  const auto take = [&](std::optional<int64_t> limit) {
    // Version 1 writes "no limit" as a number near 2^63.
    if (limit && *limit < (int64_t{1} << 60)) least = std::min(limit.value(), least.value_or(*limit));
  };
  for (const fs::path& folder : cgroup_folders("")) take(number_in(folder / "memory.max"));
  for (const fs::path& folder : cgroup_folders("memory")) take(number_in(folder / "memory.limit_in_bytes"));
  return least;
}

Facts memory_facts() {
  return {{"total_bytes", optional_bytes(meminfo_bytes("MemTotal"))},
          {"available_bytes", optional_bytes(meminfo_bytes("MemAvailable"))},
          {"swap_bytes", optional_bytes(meminfo_bytes("SwapTotal"))},
          {"cgroup_limit_bytes", optional_bytes(cgroup_memory_limit())}};
}

Facts space_facts() {
  Facts out = Facts::object();
  std::error_code error;
  const auto add = [&](const std::string& name, const fs::path& folder) {
    const fs::space_info space = fs::space(folder, error);
    out[name + "_free_bytes"] = error ? Facts(nullptr) : Facts(space.available);
  };
  const fs::path temporary = fs::temp_directory_path(error);
  out["temporary_folder"] = temporary.string();
  add("temporary_folder", temporary);
  add("working_folder", ".");
  add("shared_memory", "/dev/shm");
  return out;
}

}  // namespace focus::tools
