// How much memory this machine has, and how much of it this process may use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace focus {

/// Bytes; nothing where the system does not tell, or sets no limit.
struct SystemMemory {
  std::optional<int64_t> total, available, swap;  // of the machine: /proc/meminfo
  /// The smallest limit among the control groups (version 1 or 2) that this process is in, from its own to
  /// the root.
  std::optional<int64_t> limit;
  /// The least that one of those groups has left below its limit. Pages of files that are not in use do not
  /// count.
  std::optional<int64_t> left;

  /// What this process can still take: `available`, or `left` where that is less. Unlimited where nothing is
  /// known.
  int64_t usable() const;
};
/// `root` stands for "/": tests give a folder with a proc and a sys of its own.
SystemMemory read_system_memory(const std::filesystem::path& root = "/");

/// What this process has taken. Bytes.
struct ProcessMemory {
  int64_t peak = 0;   // largest resident set so far, mapped files included
  int64_t own = 0;    // resident now, not backed by files
  int64_t files = 0;  // resident now, pages of mapped files
};
ProcessMemory read_process_memory();

/// Asks the system for huge pages of 2 MiB where this memory lies, before anything is written to it. They may
/// begin before it and end behind it. A hint: nothing happens where there are none.
void prefer_huge_pages(void* memory, std::size_t num_bytes);

}  // namespace focus
