// Lines of a plain or gzip text file, with their numbers.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace focus::data {

/// The path "-" is standard input. Throws DataError when the file is missing, or damaged further in.
class LineReader {
 public:
  explicit LineReader(const std::filesystem::path& path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// The next line without its line end; false at the end of the file.
  bool next(std::string& line);
  /// 1-based number of the line last returned.
  int64_t number() const { return number_; }

 private:
  std::filesystem::path path_;
  gzFile file_ = nullptr;
  int64_t number_ = 0;
};

}  // namespace focus::data
