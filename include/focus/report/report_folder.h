// Where a report may be written.
#pragma once

#include <filesystem>

namespace focus::report {

/// Before the work: ConfigError where `path` is empty or a file, or a folder that is not empty unless `replace` is set, and even
/// then one that holds anything but a report's files. The report itself goes to a StagedFolder of this name. DataError where the
/// folder cannot be read.
void check_report_folder(const std::filesystem::path& path, bool replace);

}  // namespace focus::report
