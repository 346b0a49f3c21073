#include "focus/config/differences.h"

#include <gtest/gtest.h>

#include "focus/core/error.h"

namespace focus::config {
namespace {

using Lines = std::vector<std::string>;

TEST(DifferencesTest, EachChangeHasItsPath) {
  EXPECT_EQ(differences(R"({"a": 1, "b": {"c": [1, 2]}})", R"({"b": {"c": [1, 2]}, "a": 1})"), Lines{});
  EXPECT_EQ(differences(R"({"a": 1, "b": {"c": "x"}, "d": 2})", R"({"a": 1, "b": {"c": "y"}, "e": true})"),
            (Lines{"b.c: \"x\" -> \"y\"", "d: 2 -> (absent)", "e: (absent) -> true"}));
  EXPECT_EQ(differences(R"({"a": [1]})", R"({"a": {"b": 1}})"), Lines{"a: [1] -> {\"b\":1}"});
}

TEST(DifferencesTest, ElementsOfListsAreComparedOneByOne) {
  EXPECT_EQ(differences(R"({"s": [{"n": 1, "m": 2}, {"n": 3, "m": 4}]})",
                        R"({"s": [{"n": 1, "m": 2}, {"n": 5, "m": 4}]})"),
            Lines{"s.1.n: 3 -> 5"});
  EXPECT_EQ(differences(R"({"s": [1, 2]})", R"({"s": [1]})"), Lines{"s.1: 2 -> (absent)"});
  EXPECT_EQ(differences(R"({"s": []})", R"({"s": [{"n": 1}]})"), Lines{"s.0: (absent) -> {\"n\":1}"});
}

TEST(DifferencesTest, WhatIsIgnoredCoversWhatLiesBelow) {
  const std::string before = R"({"a": {"b": 1, "c": 1}, "ab": 1})",
                    after = R"({"a": {"b": 2, "c": 2}, "ab": 2})";
  EXPECT_EQ(differences(before, after, {"a"}), Lines{"ab: 1 -> 2"});
  EXPECT_EQ(differences(before, after, {"a.b", "ab"}), Lines{"a.c: 1 -> 2"});
}

TEST(DifferencesTest, DefaultsFillWhatIsMissing) {
  EXPECT_EQ(differences(
                with_defaults(R"({"a": {"b": 1}, "s": [1]})", R"({"a": {"b": 9, "c": 2}, "s": [], "d": 3})"),
                R"({"a": {"b": 1, "c": 2}, "s": [1], "d": 3})"),
            Lines{});
  EXPECT_THROW(with_defaults("{", "{}"), ConfigError);
  EXPECT_THROW(differences("{}", "nothing"), ConfigError);
}

}  // namespace
}  // namespace focus::config
