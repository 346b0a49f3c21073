#include "focus/core/units.h"

#include <gtest/gtest.h>

#include <limits>

#include "focus/core/error.h"

namespace focus {
namespace {

TEST(Units, FormatBytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(int64_t{20} << 30), "20.0 GiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<int64_t>::max()), "8.0 EiB");
}

TEST(Units, FormatCount) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_count(-123), "-123");
}

TEST(Units, FormatDuration) {
  EXPECT_EQ(format_duration(0.25), "0.25 s");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(59.96), "1m 00s");
  EXPECT_EQ(format_duration(185), "3m 05s");
  EXPECT_EQ(format_duration(7620), "2h 07m");
  EXPECT_EQ(format_duration(3599.9), "1h 00m");
  EXPECT_EQ(format_duration(4 * 86400 + 3 * 3600), "4d 03h");
  EXPECT_EQ(format_duration(-1), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
}

TEST(Units, ParseBytes) {
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("20G"), int64_t{20} << 30);
  EXPECT_EQ(parse_bytes("20 GiB"), int64_t{20} << 30);
  EXPECT_EQ(parse_bytes("1.5g"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("20GB"), 20'000'000'000);
  EXPECT_EQ(parse_bytes("9223372036854775807"), std::numeric_limits<int64_t>::max());
  for (const char* bad :
       {"", "G", "-1", "1X", "1.2.3", "20G5", "9223372036854775808", "9999999T", "1e3", "inf"}) {
    EXPECT_THROW(parse_bytes(bad), ConfigError) << bad;
  }
}

TEST(Units, ParseCount) {
  EXPECT_EQ(parse_count("1,000,000"), 1000000);
  EXPECT_EQ(parse_count("100k"), 100000);
  EXPECT_EQ(parse_count("1.5M"), 1500000);
  for (const char* bad : {"", "k", "1.5", "1.0005k", "-3", "10G5", ",5"})
    EXPECT_THROW(parse_count(bad), ConfigError) << bad;
}

}  // namespace
}  // namespace focus
