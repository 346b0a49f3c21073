#include "focus/report/report_folder.h"

#include <unistd.h>

#include <array>
#include <string_view>

#include "focus/core/error.h"

namespace focus::report {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 7> kReportFiles = {"summary.tsv",  "by_position.tsv", "by_offset.tsv", "segments.tsv",
                                                          "summary.json", "values.h5",       "report.html"};

// Replacing a folder removes it, so it must be one that a report made.
void check_replaceable(const fs::path& folder, bool replace) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!replace)
      fail<ConfigError>("output folder '", folder.string(),
                        "' is not empty; pass --force to replace the report in it, or another --output");
    bool known = false;
    for (const std::string_view file : kReportFiles) known = known || name == file;
    if (!known || entry.is_directory())
      fail<ConfigError>("output folder '", folder.string(), "' holds '", name,
                        "', which no report wrote; --force replaces reports only, pass another --output");
  }
}

}  // namespace

ReportFolder::ReportFolder(const fs::path& path, bool replace) {
  if (path.empty()) fail<ConfigError>("--output is missing: name the report's folder");
  try {
    // Links are followed and a trailing slash goes, so that the sibling and the rename concern the folder itself.
    path_ = fs::weakly_canonical(fs::absolute(path) / "");
    if (path_.filename().empty()) path_ = path_.parent_path();
    if (fs::exists(path_) && !fs::is_directory(path_))
      fail<ConfigError>("output '", path.string(), "' is a file; pass a folder with --output");
    if (fs::exists(path_)) check_replaceable(path_, replace);
    temporary_ = path_;
    temporary_ += ".tmp-" + std::to_string(::getpid());
    fs::create_directories(path_.parent_path());
    fs::remove_all(temporary_);
    fs::create_directory(temporary_);
  } catch (const fs::filesystem_error& e) {
    fail<DataError>("cannot write output folder '", path.string(), "': ", e.code().message());
  }
}

ReportFolder::~ReportFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void ReportFolder::commit() {
  try {
    fs::path old = path_;
    old += ".old-" + std::to_string(::getpid());
    const bool replaces = fs::exists(path_);
    if (replaces) fs::rename(path_, old);
    try {
      fs::rename(temporary_, path_);
    } catch (const fs::filesystem_error&) {
      std::error_code ignored;
      if (replaces) fs::rename(old, path_, ignored);
      throw;
    }
    committed_ = true;
    if (replaces) fs::remove_all(old);
  } catch (const fs::filesystem_error& e) {
    fail<DataError>("cannot write output folder '", path_.string(), "': ", e.code().message());
  }
}

}  // namespace focus::report
