// Lines of a text file, plain or packed, with their numbers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "packed_file.h"

namespace focus::data {

/// The path "-" is standard input. A byte order mark at the start is skipped. Throws DataError when the file
/// is missing, damaged or cut short, or holds a zero byte.
class LineReader {
 public:
  explicit LineReader(const std::filesystem::path& path);

  /// The next line without its line end (LF or CR LF); false at the end of the file.
  bool next(std::string& line);
  /// 1-based number of the line last returned.
  int64_t number() const { return number_; }
  /// For messages: "line 7 of 'FILE'", the line last returned.
  std::string where() const;

 private:
  PackedFile file_;
  std::vector<char> buffer_;
  std::size_t cursor_ = 0, end_ = 0;
  int64_t number_ = 0;
};

}  // namespace focus::data
