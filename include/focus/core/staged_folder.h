// A folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "focus/core/temporary.h"

namespace focus {

/// Work is done in a temporary sibling, "<path>.tmp-<pid>", which takes the name in commit(). What stood
/// there before gives way only then, and comes back when that fails. Without commit() nothing is left
/// (core/temporary.h). Every error is a DataError that names `path`.
class StagedFolder {
 public:
  /// Makes the temporary folder, and the folder above it where it is missing.
  explicit StagedFolder(std::filesystem::path path);
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  /// Where `path` really is: links followed, no slash at the end.
  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& temporary() const { return temporary_->path(); }
  /// The temporary folder takes the name, on disk too.
  void commit();
  /// Only this file or folder in it takes the name; the rest is removed.
  void commit(const std::string& name);

 private:
  void take_place(const std::filesystem::path& from);

  std::filesystem::path path_;
  std::optional<Temporary> temporary_;
};

/// Flushes the names in a folder to disk: a rename is only there after a crash once its folder is. DataError.
void sync_folder(const std::filesystem::path& folder);

}  // namespace focus
