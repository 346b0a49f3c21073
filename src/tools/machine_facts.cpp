#include "machine_facts.h"

#include <sched.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "focus/core/error.h"
#include "focus/core/system_memory.h"

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

Facts memory_facts() {
  const SystemMemory memory = read_system_memory();
  return {{"total_bytes", optional_bytes(memory.total)},
          {"available_bytes", optional_bytes(memory.available)},
          {"swap_bytes", optional_bytes(memory.swap)},
          {"cgroup_limit_bytes", optional_bytes(memory.limit)}};
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
