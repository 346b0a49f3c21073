#include "focus/core/output_guard.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

class OutputGuardTest : public ::testing::Test {
 protected:
  OutputGuardTest() {
    fs::create_directories(folder_ / "in/deep");
    write_file(input_, ">a\nACGT\n");
  }
  /// What is said of the output, "" where it is allowed.
  std::string said(const fs::path& output, const fs::path& input) const {
    try {
      require_separate({{"--output", output}}, {{"--fasta", input}});
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }
  testing::TemporaryFolder folder_;
  const fs::path input_ = folder_ / "in/x.fa";
};

TEST_F(OutputGuardTest, EverySpellingOfAnInputIsRefused) {
  fs::create_symlink(input_, folder_ / "link");
  fs::create_symlink("link", folder_ / "link of link");
  fs::create_directory_symlink(folder_ / "in", folder_ / "in too");
  fs::create_hard_link(input_, folder_ / "hard");
  for (const char* same : {"in/x.fa", "in/./x.fa", "in/deep/../x.fa", "none/../in/x.fa", "link",
                           "link of link", "in too/x.fa", "hard"}) {
    const std::string text = said(folder_ / same, input_);
    EXPECT_NE(text.find("is the input --fasta"), std::string::npos) << same << ": " << text;
    EXPECT_NE(text.find(same), std::string::npos) << text;
    EXPECT_NE(said(input_, folder_ / same), "") << same;
  }
  for (const char* other : {"in/y.fa", "in/deep/x.fa", "x.fa", "none/x.fa"})
    EXPECT_EQ(said(folder_ / other, input_), "") << other;
}

TEST_F(OutputGuardTest, WhatIsNotThereYetIsComparedByName) {
  fs::create_symlink("later.fai", folder_ / "in/dangling");
  EXPECT_NE(said(folder_ / "in/later.fai", folder_ / "in/later.fai"), "");
  EXPECT_NE(said(folder_ / "in/dangling", folder_ / "in/later.fai"), "");
  EXPECT_NE(said(folder_ / "new/deep/../x", folder_ / "new/x"), "");
  EXPECT_EQ(said(folder_ / "new/y", folder_ / "new/x"), "");
}

TEST_F(OutputGuardTest, AFolderThatHoldsAnInputIsRefused) {
  fs::create_directory_symlink(folder_ / "in", folder_ / "in too");
  for (const char* holds : {"in", "in/", "in too", "."})
    EXPECT_NE(said(folder_ / holds, input_).find("holds the input"), std::string::npos) << holds;
  EXPECT_EQ(said(folder_ / "in/deep", input_), "");
  EXPECT_EQ(said(folder_ / "i", input_), "");
}

TEST_F(OutputGuardTest, TwoOutputsNeedTwoFiles) {
  EXPECT_THROW(require_separate({{"-o", folder_ / "t"}, {"--logits", folder_ / "./t"}}, {}), ConfigError);
  EXPECT_NO_THROW(
      require_separate({{"-o", folder_ / "t"}, {"--logits", ""}, {"--save-state", ""}}, {{"--bed", ""}}));
}

TEST_F(OutputGuardTest, DevicesAndPipesAreNobodys) {
  EXPECT_EQ(said("/dev/null", "/dev/null"), "");
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(said(folder_ / "pipe", folder_ / "pipe"), "");
}

}  // namespace
}  // namespace focus
