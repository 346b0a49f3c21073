#include "focus/core/processors.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>

#include "control_groups.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

void take_least(std::optional<int64_t>& least, int64_t value) {
  least = std::min(value, least.value_or(value));
}

/// Processors' time per period as processors, rounded up; nothing where there is no quota.
void take_quota(std::optional<int64_t>& least, std::optional<int64_t> quota, std::optional<int64_t> period) {
  if (quota && period && *quota > 0 && *period > 0) take_least(least, (*quota - 1) / *period + 1);
}

/// A positive number, the first of a list such as OMP_NUM_THREADS=4,2. OpenMP itself complains of others and
/// ignores them.
std::optional<int64_t> first_number(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  const std::size_t begin = std::min(text->find_first_not_of(" \t"), text->size());
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text->data() + begin, text->data() + text->size(), value);
  const std::size_t rest = text->find_first_not_of(" \t", static_cast<std::size_t>(stop - text->data()));
  const bool whole = rest == std::string::npos || (*text)[rest] == ',';
  return error == std::errc() && whole && value > 0 ? std::optional(value) : std::nullopt;
}

std::optional<int64_t> processors_allowed() {
  // A set of fixed size is too small for the largest machines.
  for (int size = CPU_SETSIZE; size <= 64 * CPU_SETSIZE; size *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(size));
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(size));
    const bool known = set != nullptr && ::sched_getaffinity(0, bytes, set) == 0;
    const int count = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (known) return count;
  }
  return std::nullopt;
}

}  // namespace

int64_t Processors::shared() const {
  return std::max<int64_t>(1, std::min({machine, allowed.value_or(machine), quota.value_or(machine)}));
}

int64_t Processors::usable() const {
  return std::max<int64_t>(1, std::min(shared(), openmp.value_or(shared())));
}

std::string Processors::limited_by() const {
  if (openmp && *openmp < shared()) return "OMP_NUM_THREADS";
  if (quota && *quota <= shared() && *quota < std::min(machine, allowed.value_or(machine)))
    return "cgroup quota";
  return allowed && *allowed < machine ? "affinity" : "machine";
}

Processors read_processors(const fs::path& root, const Variables& variables) {
  Processors out;
  out.machine = std::max<int64_t>(1, ::sysconf(_SC_NPROCESSORS_ONLN));
  out.allowed = processors_allowed();
  for (const fs::path& folder : group_folders(root, "")) {
    std::ifstream file(folder / "cpu.max");  // "QUOTA PERIOD" in microseconds, or "max PERIOD"
    int64_t quota = 0, period = 100'000;
    if (file >> quota) {
      file >> period;
      take_quota(out.quota, quota, period);
    }
  }
  for (const fs::path& folder : group_folders(root, "cpu"))
    take_quota(out.quota, number_in(folder / "cpu.cfs_quota_us"), number_in(folder / "cpu.cfs_period_us"));
  for (const char* name : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) {
    if (const auto number = first_number(variables(name))) take_least(out.openmp, *number);
  }
  return out;
}

Processors read_processors() {
  return read_processors("/", [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  });
}

}  // namespace focus
