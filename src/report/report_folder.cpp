#include "focus/report/report_folder.h"

#include <array>
#include <string_view>

#include "focus/core/error.h"
#include "multiqc.h"

namespace focus::report {
namespace {

namespace fs = std::filesystem;

// A calibration's plan. Alone it may be a training's result.
constexpr std::string_view kPlan = "adapter.safetensors";

constexpr std::array<std::string_view, 18> kReportFiles = {
    "summary.tsv", "by_position.tsv", "by_offset.tsv", "segments.tsv", "summary.json",     "values.h5",
    "report.html", "by_class.tsv",    "needles.tsv",   "answers.tsv",  "distribution.tsv", "sweep.tsv",
    "sweep.json",  "sweep.html",      kMultiqcFile,    "blocks.tsv",   "memory.json",      kPlan};

// Replacing a folder removes it, so it must be one that a report made.
void check_replaceable(const fs::path& folder, bool replace) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == FolderLock::kFile) continue;
    if (!replace)
      fail<ConfigError>("output folder '", folder.string(),
                        "' is not empty; pass --force to replace the report in it, or another --output");
    bool known = false;
    for (const std::string_view file : kReportFiles) known = known || name == file;
    if (name == kPlan) known = fs::exists(folder / "memory.json");
    if (!known || entry.is_directory())
      fail<ConfigError>("output folder '", folder.string(), "' holds '", name,
                        "', which no report wrote; --force replaces reports only, pass another --output");
  }
}

/// The path, once it has passed the check.
const fs::path& checked(const fs::path& path, bool replace) {
  check_report_folder(path, replace);
  return path;
}

}  // namespace

// Checked again under the lock: its last holder may have left a report.
ReportFolder::ReportFolder(const fs::path& path, bool replace)
    : lock_(checked(path, replace)), staged_(checked(path, replace)) {}

void check_report_folder(const fs::path& path, bool replace) {
  if (path.empty()) fail<ConfigError>("--output is missing: name the report's folder");
  try {
    if (fs::exists(path) && !fs::is_directory(path))
      fail<ConfigError>("output '", path.string(), "' is a file; pass a folder with --output");
    if (fs::exists(path)) check_replaceable(path, replace);
  } catch (const fs::filesystem_error& e) {
    fail<DataError>("cannot write output folder '", path.string(), "': ", e.code().message());
  }
}

}  // namespace focus::report
