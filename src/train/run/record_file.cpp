#include "run/record_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "focus/core/error.h"
#include "focus/core/file.h"

namespace focus::train {

RecordFile::RecordFile(std::filesystem::path path, std::string_view begin) : path_(std::move(path)) {
  write_file(path_, begin);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd_ < 0) fail<DataError>("cannot append to '", path_.string(), "': ", std::strerror(errno));
}

RecordFile::~RecordFile() { ::close(fd_); }

void RecordFile::append(std::string_view record) {
  while (!record.empty()) {
    const ssize_t written = ::write(fd_, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      fail<DataError>("cannot write '", path_.string(), "': ", std::strerror(errno),
                      "; earlier checkpoints are whole, continue with --resume");
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

void RecordFile::sync() {
  if (::fsync(fd_) != 0 && errno != EINVAL)
    fail<DataError>("cannot flush '", path_.string(), "': ", std::strerror(errno));
}

}  // namespace focus::train
