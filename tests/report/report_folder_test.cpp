#include "focus/report/report_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus::report {
namespace {

namespace fs = std::filesystem;

TEST(ReportFolderTest, NewAndEmptyFoldersAreTaken) {
  const testing::TemporaryFolder space;
  EXPECT_NO_THROW(check_report_folder(space / "deep/er/out/", false));
  fs::create_directory(space / "out");
  EXPECT_NO_THROW(check_report_folder(space / "out", false));
}

TEST(ReportFolderTest, ReplacesReportsWhenAskedAndNothingElse) {
  const testing::TemporaryFolder space;
  fs::create_directory(space / "out");
  write_file(space / "out/report.html", "old");
  EXPECT_THROW(check_report_folder(space / "out", false), ConfigError);
  EXPECT_NO_THROW(check_report_folder(space / "out", true));
  write_file(space / "out/thesis.tex", "precious");
  EXPECT_THROW(check_report_folder(space / "out", true), ConfigError);
  EXPECT_THROW(check_report_folder(space / "out/report.html", true), ConfigError);
  EXPECT_THROW(check_report_folder("", false), ConfigError);
}

}  // namespace
}  // namespace focus::report
