#include "line_reader.h"

#include <cstring>

#include "focus/core/error.h"

namespace focus::data {

LineReader::LineReader(const std::filesystem::path& path) : file_(path), buffer_(1 << 17) {}

std::string LineReader::where() const { return concat("line ", number_, " of ", file_.source()); }

bool LineReader::next(std::string& line) {
  line.clear();
  bool any = false, ended = false;
  while (!ended) {
    if (cursor_ == end_) {
      cursor_ = 0;
      end_ = file_.read(buffer_.data(), buffer_.size());
      if (end_ == 0) break;
    }
    any = true;
    const char* const begin = buffer_.data() + cursor_;
    const auto* const stop = static_cast<const char*>(std::memchr(begin, '\n', end_ - cursor_));
    const auto count = stop == nullptr ? end_ - cursor_ : static_cast<std::size_t>(stop - begin);
    if (std::memchr(begin, '\0', count) != nullptr)
      fail<DataError>("line ", number_ + 1, " of ", file_.source(),
                      " holds a zero byte; this is no text file");
    line.append(begin, count);
    ended = stop != nullptr;
    cursor_ += count + (ended ? 1 : 0);
  }
  if (!any) return false;
  if (++number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  while (!line.empty() && line.back() == '\r') line.pop_back();
  return true;
}

}  // namespace focus::data
