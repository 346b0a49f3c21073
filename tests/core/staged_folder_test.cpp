#include "focus/core/staged_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

int64_t entries_of(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

TEST(StagedFolderTest, AppearsOnlyWhenCommitted) {
  const testing::TemporaryFolder space;
  {
    const StagedFolder folder(space / "deep/er/out/");
    write_file(folder.temporary() / "a", "x");
    EXPECT_FALSE(fs::exists(space / "deep/er/out"));
  }
  EXPECT_EQ(entries_of(space / "deep/er"), 0);
  StagedFolder folder(space / "deep/er/out/");
  write_file(folder.temporary() / "a", "x");
  folder.commit();
  EXPECT_EQ(read_file(space / "deep/er/out/a"), "x");
  EXPECT_EQ(entries_of(space / "deep/er"), 1);
}

TEST(StagedFolderTest, ReplacesTheWholeFolderThatStoodThere) {
  const testing::TemporaryFolder space;
  fs::create_directory(space / "out");
  write_file(space / "out/old", "old");
  {
    StagedFolder folder(space / "out");
    write_file(folder.temporary() / "new", "new");
    EXPECT_EQ(read_file(space / "out/old"), "old");
    folder.commit();
  }
  EXPECT_FALSE(fs::exists(space / "out/old"));
  EXPECT_EQ(read_file(space / "out/new"), "new");
  EXPECT_EQ(entries_of(space.path()), 1);
}

TEST(StagedFolderTest, OneFileOrFolderInItCanTakeTheName) {
  const testing::TemporaryFolder space;
  write_file(space / "file", "old");
  fs::create_directory(space / "folder");
  for (const char* name : {"file", "folder"}) {
    StagedFolder staged(space / name);
    write_file(staged.temporary() / "scratch", "gone soon");
    if (std::string(name) == "folder") fs::create_directory(staged.temporary() / "result");
    write_file(staged.temporary() / (std::string(name) == "folder" ? "result/part" : "result"), "new");
    staged.commit("result");
  }
  EXPECT_EQ(read_file(space / "file"), "new");
  EXPECT_EQ(read_file(space / "folder/part"), "new");
  EXPECT_EQ(entries_of(space.path()), 2);
}

TEST(StagedFolderTest, ALinkStaysAndWhatItPointsToIsReplaced) {
  const testing::TemporaryFolder space;
  fs::create_directory(space / "real");
  fs::create_directory_symlink(space / "real", space / "link");
  StagedFolder folder(space / "link");
  write_file(folder.temporary() / "a", "x");
  folder.commit();
  EXPECT_TRUE(fs::is_symlink(space / "link"));
  EXPECT_EQ(read_file(space / "real/a"), "x");
}

TEST(StagedFolderTest, WhatStoodThereComesBackWhenTheNameCannotBeTaken) {
  const testing::TemporaryFolder space;
  fs::create_directory(space / "out");
  write_file(space / "out/old", "old");
  StagedFolder folder(space / "out");
  EXPECT_THROW(folder.commit("never written"), DataError);
  EXPECT_EQ(read_file(space / "out/old"), "old");
}

TEST(StagedFolderTest, APlaceThatCannotBeWrittenIsKnownBeforeTheWork) {
  const testing::TemporaryFolder space;
  write_file(space / "file", "x");
  EXPECT_THROW(StagedFolder(space / "file/below"), DataError);
}

}  // namespace
}  // namespace focus
