// What the tests of weight files share: files, refusals, views as values.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "archive_bytes.h"
#include "focus/core/error.h"
#include "focus/formats/tensor_file.h"
#include "support/temporary_folder.h"

namespace focus::formats::testing {

using focus::testing::TemporaryFolder;

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// ---- reading ----
inline std::shared_ptr<TensorFile> open_bytes(const std::string& bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", bytes);
  return TensorFile::open(folder / "file");  // the mapping outlives the file's name
}

template <class T>
std::vector<T> values_of(const TensorView& view) {
  std::vector<T> values(static_cast<std::size_t>(view.num_elements()));
  if (!values.empty()) std::memcpy(values.data(), view.data, values.size() * sizeof(T));
  return values;
}

/// `path`.part0, .part1, ...: the bytes up to the first cut, up to the second, ...
inline void split(const std::string& bytes, const std::filesystem::path& path,
                  const std::vector<std::size_t>& cuts) {
  std::size_t from = 0, number = 0;
  for (const std::size_t to : cuts) {
    write_bytes(path.string() + ".part" + std::to_string(number++), bytes.substr(from, to - from));
    from = to;
  }
  write_bytes(path.string() + ".part" + std::to_string(number), bytes.substr(from));
}

/// The message of the error of class E that `action` gives; "nothing was thrown" where there is none.
template <class E, class Action>
std::string refusal_by(Action&& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

inline std::string as_string(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline std::string refusal_of_path(const std::filesystem::path& path) {
  try {
    TensorFile::open(path);
  } catch (const WeightsError& error) {
    return error.what();
  }
  return "it was opened";
}

/// The message of the WeightsError that opening these bytes gives; "it was opened" where there is none.
inline std::string refusal_of(const std::string& bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", bytes);
  return refusal_of_path(folder / "file");
}

#define EXPECT_MENTIONS(message, part) \
  EXPECT_NE(std::string(message).find(part), std::string::npos) << "message: " << (message)

inline std::filesystem::path golden_checkpoint() {
  return std::filesystem::path(FOCUS_TEST_DATA) / "checkpoints" / "tiny7b.pt";
}

}  // namespace focus::formats::testing
