// Files and folders under names of their own, which nothing must leave behind.
#pragma once

#include <filesystem>
#include <mutex>

namespace focus {

/// Whatever stands under `path` is removed with this object, and when a later signal ends the process at once
/// (core/interrupt.h). Renaming it away keeps it. Makes nothing itself; an empty path is nobody's.
class Temporary {
 public:
  explicit Temporary(std::filesystem::path path = {});
  ~Temporary();
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Removes all that is temporary now. The process must end after that: what is being written goes too.
void remove_temporaries();

/// While it lives, remove_temporaries() waits: for steps between which a name would stand for nothing.
std::unique_lock<std::recursive_mutex> hold_temporaries();

}  // namespace focus
