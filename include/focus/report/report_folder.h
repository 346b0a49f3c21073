// Where a report is written.
#pragma once

#include <filesystem>

#include "focus/core/folder_lock.h"
#include "focus/core/staged_folder.h"

namespace focus::report {

/// Before the work: ConfigError where `path` is empty or a file, or a folder that is not empty unless
/// `replace` is set, and even then one that holds anything but a report's files. DataError where the folder
/// cannot be read.
void check_report_folder(const std::filesystem::path& path, bool replace);

/// The folder of a report that is being made: held against other runs, filled under a temporary name, and
/// there when it is complete or not at all.
class ReportFolder {
 public:
  /// As check_report_folder(), FolderLock and StagedFolder.
  ReportFolder(const std::filesystem::path& path, bool replace);
  const std::filesystem::path& temporary() const { return staged_.temporary(); }
  void commit() { staged_.commit(); }

 private:
  FolderLock lock_;
  StagedFolder staged_;
};

}  // namespace focus::report
