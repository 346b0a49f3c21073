// A report's folder, which appears whole or not at all.
#pragma once

#include <filesystem>

namespace focus::report {

/// Files are written to a temporary sibling of the folder, which takes the folder's name in commit(); without commit() it is removed.
class ReportFolder {
 public:
  /// Makes the temporary folder, so that a place that cannot be written is known before the work. ConfigError: `path` is a file, or a
  /// folder that is not empty unless `replace` is set; even then one that holds anything but a report's files. DataError: it cannot be
  /// written.
  ReportFolder(const std::filesystem::path& path, bool replace);
  ~ReportFolder();
  ReportFolder(const ReportFolder&) = delete;
  ReportFolder& operator=(const ReportFolder&) = delete;

  const std::filesystem::path& temporary() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  bool committed_ = false;
};

}  // namespace focus::report
