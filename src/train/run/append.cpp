#include "run/append.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "focus/core/error.h"

namespace focus::train {

void append_whole(int fd, const std::filesystem::path& path, std::string_view record) {
  while (!record.empty()) {
    const ssize_t written = ::write(fd, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      fail<DataError>("cannot write '", path.string(), "': ", std::strerror(errno),
                      "; earlier checkpoints are whole, continue with --resume");
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_file(int fd, const std::filesystem::path& path) {
  if (::fsync(fd) != 0 && errno != EINVAL) fail<DataError>("cannot flush '", path.string(), "': ", std::strerror(errno));
}

}  // namespace focus::train
