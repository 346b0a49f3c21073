#include "focus/report/report_folder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus::report {
namespace {

namespace fs = std::filesystem;

int64_t entries_of(const fs::path& folder) { return std::distance(fs::directory_iterator(folder), fs::directory_iterator()); }

TEST(ReportFolderTest, AppearsOnlyWhenCommitted) {
  const testing::TemporaryFolder space;
  {
    const ReportFolder folder(space / "deep/er/out/", false);
    write_file(folder.temporary() / "summary.tsv", "x");
    EXPECT_FALSE(fs::exists(space / "deep/er/out"));
  }
  EXPECT_EQ(entries_of(space / "deep/er"), 0);
  ReportFolder folder(space / "deep/er/out/", false);
  write_file(folder.temporary() / "summary.tsv", "x");
  folder.commit();
  EXPECT_TRUE(fs::exists(space / "deep/er/out/summary.tsv"));
  EXPECT_EQ(entries_of(space / "deep/er"), 1);
}

TEST(ReportFolderTest, AnEmptyFolderIsTaken) {
  const testing::TemporaryFolder space;
  fs::create_directory(space / "out");
  ReportFolder folder(space / "out", false);
  folder.commit();
  EXPECT_EQ(entries_of(space / ""), 1);
}

TEST(ReportFolderTest, ReplacesReportsWhenAskedAndNothingElse) {
  const testing::TemporaryFolder space;
  fs::create_directory(space / "out");
  write_file(space / "out/report.html", "old");
  EXPECT_THROW(ReportFolder(space / "out", false), ConfigError);
  {
    ReportFolder folder(space / "out", true);
    write_file(folder.temporary() / "summary.tsv", "new");
    folder.commit();
  }
  EXPECT_FALSE(fs::exists(space / "out/report.html"));
  EXPECT_EQ(read_file(space / "out/summary.tsv"), "new");
  EXPECT_EQ(entries_of(space / ""), 1);
  write_file(space / "out/thesis.tex", "precious");
  EXPECT_THROW(ReportFolder(space / "out", true), ConfigError);
  EXPECT_EQ(read_file(space / "out/thesis.tex"), "precious");
  EXPECT_THROW(ReportFolder(space / "out/summary.tsv", true), ConfigError);
  EXPECT_THROW(ReportFolder("", false), ConfigError);
  EXPECT_THROW(ReportFolder(space / "out/summary.tsv/below", false), DataError);
}

}  // namespace
}  // namespace focus::report
