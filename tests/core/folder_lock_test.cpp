#include "focus/core/folder_lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

std::string refusal(const fs::path& folder) {
  try {
    const FolderLock lock(folder);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(FolderLockTest, OneHolderAtATimeWhoIsNamed) {
  const testing::TemporaryFolder space;
  fs::create_directories(space / "run");
  fs::create_directory_symlink(space / "run", space / "also");
  auto lock = std::make_unique<FolderLock>(space / "run");
  for (const char* name : {"run", "also", "run/"}) {
    const std::string text = refusal(space / name);
    EXPECT_NE(text.find(concat("process ", ::getpid(), " on ")), std::string::npos) << text;
    EXPECT_NE(text.find("--output"), std::string::npos) << text;
  }
  EXPECT_EQ(refusal(space / "other"), "");
  EXPECT_EQ(FolderLock::try_take(space / "run"), nullptr);
  lock.reset();
  EXPECT_NE(FolderLock::try_take(space / "run"), nullptr);
  EXPECT_EQ(refusal(space / "run"), "");
  EXPECT_TRUE(fs::is_empty(space / "run"));
}

TEST(FolderLockTest, AKilledHolderHoldsNothing) {
  const testing::TemporaryFolder space;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FolderLock lock(space / "run");
    [[maybe_unused]] const auto told = ::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char byte = 0;
  ::close(ready[1]);
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_NE(refusal(space / "run").find(concat("process ", child)), std::string::npos);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(space / "run/.lock"));
  EXPECT_EQ(refusal(space / "run"), "");
}

TEST(FolderLockTest, AFolderItMadeGoesUnlessItIsUsed) {
  const testing::TemporaryFolder space;
  {
    const FolderLock lock(space / "deep/run/");
  }
  EXPECT_FALSE(fs::exists(space / "deep/run"));
  {
    const FolderLock lock(space / "deep/run");
    write_file(space / "deep/run/result", "x");
  }
  EXPECT_TRUE(fs::exists(space / "deep/run/result"));
  EXPECT_FALSE(fs::exists(space / "deep/run/.lock"));
}

TEST(FolderLockTest, AFolderThatWasReplacedKeepsItsNextHoldersLock) {
  const testing::TemporaryFolder space;
  auto first = std::make_unique<FolderLock>(space / "run");
  fs::rename(space / "run", space / "old");
  const FolderLock second(space / "run");
  first.reset();
  EXPECT_NE(refusal(space / "run"), "");
}

TEST(FolderLockTest, AFileIsNoFolder) {
  const testing::TemporaryFolder space;
  write_file(space / "file", "x");
  EXPECT_NE(refusal(space / "file").find("is a file"), std::string::npos);
  EXPECT_EQ(read_file(space / "file"), "x");
}

}  // namespace
}  // namespace focus
