// The bytes of one checkpoint as one contiguous range, whether it lies in one file or in NAME.part0, NAME.part1, ...
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "focus/core/file.h"

namespace focus::weights {

class FileBytes {
 public:
  /// Maps `path`, or its parts when `path` does not exist. Throws WeightsError: nothing there, or not readable.
  explicit FileBytes(const std::filesystem::path& path);
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  /// How messages call the file: its quoted path, with the number of parts where there are several.
  const std::string& where() const { return where_; }
  /// One sentence to end a message about a damaged file with.
  const std::string& advice() const { return advice_; }

 private:
  void join(const std::vector<std::filesystem::path>& parts);

  std::span<const std::byte> bytes_;
  std::optional<MappedFile> whole_;
  void* joined_ = nullptr;
  std::size_t joined_bytes_ = 0;
  std::string where_, advice_;
};

}  // namespace focus::weights
