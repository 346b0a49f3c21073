#include "focus/core/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "focus/core/error.h"

namespace focus {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / concat("focus-file-", ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(FileTest, AppearsOnlyOnCommit) {
  const auto path = folder_ / "out.txt";
  {
    AtomicFile file(path);
    file.write("abc");
    EXPECT_FALSE(std::filesystem::exists(path));
    file.commit();
  }
  EXPECT_EQ(read_file(path), "abc");
  {
    AtomicFile abandoned(path);
  }
  EXPECT_EQ(read_file(path), "abc");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, DevicesAreWrittenToAndLinksStay) {
  const auto device = folder_ / "device", target = folder_ / "target", link = folder_ / "link";
  std::filesystem::create_symlink("/dev/null", device);
  write_file(device, "gone");
  EXPECT_TRUE(std::filesystem::is_symlink(device));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  EXPECT_THROW(write_file("/dev/full", "no room"), DataError);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  write_file(target, "before");
  std::filesystem::create_symlink("target", link);
  write_file(link, "after");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(read_file(target), "after");
  EXPECT_THROW(write_file(folder_, "x"), DataError);
}

TEST_F(FileTest, MapsAndRefuses) {
  write_file(folder_ / "empty", "");
  EXPECT_EQ(MappedFile(folder_ / "empty").size(), 0);
  EXPECT_EQ(read_file(folder_ / "empty"), "");
  EXPECT_THROW(read_file(folder_ / "missing"), DataError);
  EXPECT_THROW(read_file(folder_), DataError);
  EXPECT_THROW(write_file(folder_ / "no" / "such", "x"), DataError);
}

}  // namespace
}  // namespace focus
