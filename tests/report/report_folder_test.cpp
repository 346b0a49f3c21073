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

TEST(ReportFolderTest, OneReportAtATime) {
  const testing::TemporaryFolder space;
  {
    ReportFolder report(space / "out", false);
    EXPECT_NO_THROW(check_report_folder(space / "out", false));  // the lock is no report
    for (const bool replace : {false, true}) EXPECT_THROW(ReportFolder(space / "out", replace), ConfigError);
    write_file(report.temporary() / "report.html", "x");
    report.commit();
  }
  EXPECT_EQ(read_file(space / "out/report.html"), "x");
  EXPECT_FALSE(std::filesystem::exists(space / "out/.lock"));
  EXPECT_THROW(ReportFolder(space / "out", false), ConfigError);
  EXPECT_NO_THROW(ReportFolder(space / "out", true));
  EXPECT_EQ(read_file(space / "out/report.html"), "x") << "it was not committed";
  {
    const ReportFolder given_up(space / "new", false);
  }
  EXPECT_FALSE(std::filesystem::exists(space / "new"));
}

}  // namespace
}  // namespace focus::report
