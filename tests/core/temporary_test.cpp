#include "focus/core/temporary.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "support/temporary_folder.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

TEST(TemporaryTest, GoesWithItsObjectUnlessItWasRenamed) {
  const testing::TemporaryFolder folder;
  {
    const Temporary file(folder / "file"), tree(folder / "tree"), kept(folder / "kept"),
        never(folder / "never");
    std::ofstream(file.path()) << "x";
    fs::create_directories(tree.path() / "a" / "b");
    std::ofstream(kept.path()) << "x";
    fs::rename(kept.path(), folder / "result");
  }
  EXPECT_TRUE(fs::exists(folder / "result"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(TemporaryTest, AllGoAtOnce) {
  const testing::TemporaryFolder folder;
  std::optional<Temporary> gone(folder / "gone");
  gone.reset();
  std::ofstream(folder / "gone") << "a file of somebody else";
  const Temporary file(folder / "file"), same(folder / "file"), tree(folder / "tree"), nothing;
  std::ofstream(file.path()) << "x";
  fs::create_directories(tree.path() / "a");
  remove_temporaries();
  EXPECT_FALSE(fs::exists(file.path()));
  EXPECT_FALSE(fs::exists(tree.path()));
  EXPECT_TRUE(fs::exists(folder / "gone"));
}

}  // namespace
}  // namespace focus
