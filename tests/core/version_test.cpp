#include "focus/core/version.h"

#include <gtest/gtest.h>

#include <string>

namespace focus {
namespace {

TEST(Version, LineNamesVersionAndHash) {
  EXPECT_EQ(version_line(), std::string("focus ") + version() + " (" + git_hash() + ")");
  EXPECT_NE(std::string(version()).find('.'), std::string::npos);
  EXPECT_FALSE(std::string(git_hash()).empty());
}

}  // namespace
}  // namespace focus
