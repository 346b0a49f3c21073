#include "run/event_log.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "support/temporary_folder.h"

namespace focus::train {
namespace {

namespace fs = std::filesystem;

fs::path only_file(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) found.push_back(entry.path());
  EXPECT_EQ(found.size(), 1U);
  return found.at(0);
}

/// The step of each record behind the first, read by the format's own rules.
std::vector<int> steps(const fs::path& path) {
  const std::string bytes = read_file(path);
  std::vector<int> out;
  for (std::size_t at = 0; at < bytes.size();) {
    uint64_t size = 0;
    std::memcpy(&size, bytes.data() + at, 8);
    const std::string message = bytes.substr(at + 12, size);
    if (at > 0)
      out.push_back(message.at(
          10));  // after the key and the 8 bytes of the wall time, and the step's key; below 128 one byte
    at += 16 + size;
  }
  return out;
}

TEST(EventLog, Crc32cOfKnownTexts) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
}

TEST(EventLog, BeginsWithTheVersionAndHoldsFiniteNumbersOnly) {
  const testing::TemporaryFolder folder;
  EventLog log(folder.path());
  log.write(3, {{"loss", 1.25}, {"kind", "text"}, {"none", std::nan("")}, {"bases", int64_t{7}}});
  const fs::path path = only_file(folder.path());
  EXPECT_TRUE(path.filename().string().starts_with("events.out.tfevents."));
  const std::string bytes = read_file(path);
  EXPECT_NE(bytes.find("brain.Event:2"), std::string::npos);
  // Tag, key of simple_value, and 1.25 as a float.
  EXPECT_NE(bytes.find(std::string("\x0a\x04loss\x15\x00\x00\xa0\x3f", 11)), std::string::npos);
  EXPECT_NE(bytes.find("bases"), std::string::npos);
  EXPECT_EQ(bytes.find("none"), std::string::npos);
  EXPECT_EQ(bytes.find("kind"), std::string::npos);
  EXPECT_EQ(steps(path), std::vector<int>{3});
}

TEST(EventLog, ResumingDropsLaterStepsAndATornRecord) {
  const testing::TemporaryFolder folder;
  {
    EventLog log(folder.path());
    for (int step = 1; step <= 6; ++step) log.write(step, {{"loss", 1.0 / step}});
  }
  const fs::path path = only_file(folder.path());
  const std::string whole = read_file(path);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << whole.substr(0, whole.size() - 3);
  {
    EventLog log(folder.path(), 4);
    log.write(5, {{"loss", 0.5}});
  }
  EXPECT_EQ(only_file(folder.path()), path);
  EXPECT_EQ(steps(path), (std::vector<int>{1, 2, 3, 4, 5}));
  {
    EventLog log(folder.path());
  }  // a fresh start keeps nothing
  EXPECT_EQ(steps(only_file(folder.path())), std::vector<int>{});
}

}  // namespace
}  // namespace focus::train
