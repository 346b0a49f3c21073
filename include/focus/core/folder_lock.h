// One run at a time in a folder.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace focus {

/// Holds a folder from construction to destruction, or to the end of the process, however it ends: an flock
/// on `.lock` in it, which says who holds it. The file goes with the lock; one that a killed process left
/// holds nothing. flock reaches other machines over NFS too. A file system that has no locks is used without
/// one, after a warning.
class FolderLock {
 public:
  static constexpr const char* kFile = ".lock";

  /// Makes the folder where it is missing; it is removed again where nothing was put into it. ConfigError:
  /// another process holds it, or `folder` is a file. DataError: it cannot be made or written.
  explicit FolderLock(std::filesystem::path folder);
  /// The same, null where another process holds it.
  static std::unique_ptr<FolderLock> try_take(std::filesystem::path folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  struct Free {};
  explicit FolderLock(Free) {}
  /// Who holds it; empty: this object does.
  std::string take(std::filesystem::path folder);
  std::filesystem::path folder_, file_;
  int fd_ = -1;
  bool made_folder_ = false;
};

}  // namespace focus
