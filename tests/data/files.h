// Small input files for the tests of the data room.
#pragma once

#include <gtest/gtest.h>
#include <htslib/bgzf.h>
#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "focus/core/error.h"
#include "support/temporary_folder.h"

namespace focus::data {

class Folder {
 public:
  std::string operator/(const std::string& name) const { return (folder_ / name).string(); }
  std::string text(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return *this / name;
  }
  std::string gzip(const std::string& name, const std::string& content) const {
    gzFile file = gzopen((*this / name).c_str(), "wb");
    gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
    gzclose(file);
    return *this / name;
  }
  std::string bgzip(const std::string& name, const std::string& content) const {
    BGZF* file = bgzf_open((*this / name).c_str(), "w");
    EXPECT_EQ(bgzf_write(file, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    bgzf_close(file);
    return *this / name;
  }

 private:
  testing::TemporaryFolder folder_;
};

/// Letters drawn by a fixed linear congruential generator.
inline std::string letters(int64_t length, uint64_t seed, const std::string& alphabet = "ACGT") {
  std::string result;
  for (int64_t i = 0; i < length; ++i) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    result += alphabet[(seed >> 33) % alphabet.size()];
  }
  return result;
}

/// Cleaned letters as text.
inline std::string text_of(const std::vector<uint8_t>& letters) { return {letters.begin(), letters.end()}; }

inline std::string fasta_record(const std::string& name, const std::string& sequence,
                                std::size_t width = 60) {
  std::string result = ">" + name + "\n";
  for (std::size_t i = 0; i < sequence.size(); i += width) result += sequence.substr(i, width) + "\n";
  return result;
}

/// The message of the E that `action` throws; a test failure when it throws nothing.
template <class E = DataError>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace focus::data

#define EXPECT_MESSAGE(action, part) EXPECT_THAT_CONTAINS(::focus::data::message_of([&] { action; }), part)
#define EXPECT_THAT_CONTAINS(text, part)                               \
  do {                                                                 \
    const std::string text_value = (text);                             \
    EXPECT_NE(text_value.find(part), std::string::npos) << text_value; \
  } while (false)
