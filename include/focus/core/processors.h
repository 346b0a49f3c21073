// How many processors this process may use.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace focus {

/// Nothing where the system does not tell, or sets no limit.
struct Processors {
  int64_t machine = 1;             // processors that are on
  std::optional<int64_t> allowed;  // those that this process may run on (taskset, cpusets)
  /// The smallest quota of processor time among the control groups (version 1 or 2) that this process is in,
  /// from its own to the root, as processors; a part of one counts as one.
  std::optional<int64_t> quota;
  std::optional<int64_t> openmp;  // OMP_NUM_THREADS, or OMP_THREAD_LIMIT where that is less

  /// The least of all but `openmp`, which is for each process rather than for all on the machine; at least 1.
  int64_t shared() const;
  /// The least of all: how many threads to take where nobody says.
  int64_t usable() const;
  /// What the limit is: "machine", "affinity", "cgroup quota" or "OMP_NUM_THREADS".
  std::string limited_by() const;
};

using Variables = std::function<std::optional<std::string>(const std::string&)>;
/// `root` stands for "/", and `variables` for the environment: tests give their own.
Processors read_processors(const std::filesystem::path& root, const Variables& variables);
Processors read_processors();

}  // namespace focus
