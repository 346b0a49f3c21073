#include "line_reader.h"

#include <unistd.h>

#include <array>
#include <cstring>

#include "focus/core/error.h"

namespace focus::data {

LineReader::LineReader(const std::filesystem::path& path) : path_(path) {
  if (path == "-") {
    path_ = "standard input";
    // zlib closes what it is given, and standard input is not ours to close.
    const int copy = ::dup(STDIN_FILENO);
    file_ = copy >= 0 ? gzdopen(copy, "rb") : nullptr;
    if (file_ == nullptr) fail<DataError>("cannot read standard input");
    return;
  }
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) fail<DataError>("'", path.string(), "' is a folder, not a file");
  file_ = gzopen(path.c_str(), "rb");
  if (file_ == nullptr) fail<DataError>("cannot open '", path.string(), "': check that the file exists and is readable");
  gzbuffer(file_, 1 << 17);
}

LineReader::~LineReader() { gzclose(file_); }

bool LineReader::next(std::string& line) {
  line.clear();
  std::array<char, 1 << 14> buffer;
  bool any = false;
  while (gzgets(file_, buffer.data(), static_cast<int>(buffer.size())) != nullptr) {
    any = true;
    const std::size_t count = std::strlen(buffer.data());
    line.append(buffer.data(), count);
    if (count > 0 && buffer[count - 1] == '\n') break;
    if (count + 1 < buffer.size() && !gzeof(file_))
      fail<DataError>("line ", number_ + 1, " of '", path_.string(), "' holds a zero byte; this is no text file");
  }
  int code = Z_OK;
  const char* const message = gzerror(file_, &code);
  if (code != Z_OK && code != Z_STREAM_END) fail<DataError>("cannot read '", path_.string(), "' after line ", number_, ": ", message);
  if (!any) return false;
  ++number_;
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  return true;
}

}  // namespace focus::data
