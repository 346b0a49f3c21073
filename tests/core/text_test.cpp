#include "focus/core/text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "focus/core/hash.h"

namespace focus {
namespace {

TEST(TextTest, EditsAreCountedWithoutCase) {
  EXPECT_EQ(edit_distance("window", "Window"), 0);
  EXPECT_EQ(edit_distance("widnow", "window"), 1) << "neighbours swapped";
  EXPECT_EQ(edit_distance("windw", "window"), 1);
  EXPECT_EQ(edit_distance("", "abc"), 3);
}

TEST(TextTest, OnlyALikelySlipHasANearestWord) {
  const std::vector<std::string> words = {"sliding", "strided", "state_only"};
  EXPECT_EQ(nearest("slidng", words), "sliding");
  EXPECT_EQ(nearest("quantised", words), "");
  EXPECT_EQ(nearest(std::string(10000, 's'), words), "");
  EXPECT_EQ(quoted_list({"a", "b"}), "\"a\", \"b\"");
}

TEST(TextTest, LongListsAreCutShortAndSaySo) {
  std::string message = "wrong:";
  append_list(message, "nothing", {});
  EXPECT_EQ(message, "wrong:");
  append_list(message, "missing", {"x", "y"});
  EXPECT_EQ(message, "wrong:\n  missing (2):\n    x\n    y");
  std::string many;
  append_list(many, "missing", std::vector<std::string>(23, "x"));
  EXPECT_NE(many.find("missing (23):"), std::string::npos);
  EXPECT_TRUE(many.ends_with("\n    x\n    ... and 3 more")) << many;
}

// The published values of FNV-1a.
TEST(HashTest, GivesThePublishedValues) {
  EXPECT_EQ(fnv1a("", 0), 0xcbf29ce484222325U);
  EXPECT_EQ(fnv1a("a", 1), 0xaf63dc4c8601ec8cU);
  EXPECT_EQ(fnv1a("foobar", 6), 0x85944171f73967e8U);
}

}  // namespace
}  // namespace focus
