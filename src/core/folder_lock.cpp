#include "focus/core/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "focus/core/clock.h"
#include "focus/core/error.h"
#include "focus/core/log.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return concat(::program_invocation_short_name, ", process ", ::getpid(), " on ", host.data(), ", since ",
                utc_now());
}

/// The first line of what the holder wrote; it may not have come to that yet.
std::string holder(int fd) {
  std::array<char, 512> text{};
  const ssize_t size = ::pread(fd, text.data(), text.size() - 1, 0);
  const std::string line(text.data(), size > 0 ? std::strcspn(text.data(), "\n") : 0);
  return line.empty() ? "another process" : line;
}

/// Whether `fd` is what `path` names: between opening and locking, the last holder may have removed the file.
bool is_file(int fd, const fs::path& path) {
  struct stat open{}, named{};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

}  // namespace

FolderLock::FolderLock(fs::path folder) {
  const std::string who = take(std::move(folder));
  if (!who.empty())
    fail<ConfigError>("output folder '", folder_.string(), "' is in use by ", who,
                      "; wait until it has ended, or pass another --output");
}

std::unique_ptr<FolderLock> FolderLock::try_take(fs::path folder) {
  std::unique_ptr<FolderLock> lock(new FolderLock(Free{}));
  return lock->take(std::move(folder)).empty() ? std::move(lock) : nullptr;
}

std::string FolderLock::take(fs::path folder) {
  folder_ = std::move(folder);
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // what is made is told by the name alone
  file_ = folder_ / kFile;
  std::error_code error;
  if (fs::exists(folder_, error) && !fs::is_directory(folder_, error))
    fail<ConfigError>("output '", folder_.string(), "' is a file; pass a folder with --output");
  for (;;) {
    // Again where the last holder has just removed the folder that it made.
    made_folder_ = fs::create_directories(folder_, error) || made_folder_;
    if (error) fail<DataError>("cannot make the folder '", folder_.string(), "': ", error.message());
    fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0 && errno == ENOENT && !fs::exists(folder_, error)) continue;
    if (fd_ < 0)
      fail<DataError>("cannot write in the folder '", folder_.string(), "': ", std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
      if (is_file(fd_, file_)) break;
      ::close(std::exchange(fd_, -1));
      continue;
    }
    const int reason = errno;
    if (reason == EINTR) {
      ::close(std::exchange(fd_, -1));
      continue;
    }
    if (reason == EWOULDBLOCK) {
      const std::string who = holder(fd_);
      ::close(std::exchange(fd_, -1));
      return who;
    }
    log::warn(concat("the file system of '", folder_.string(), "' has no locks (", std::strerror(reason),
                     "): a second run in this folder would not be noticed"));
    break;
  }
  const std::string text = this_process() + "\n";
  // It serves messages only: on a full disk the lock holds without it.
  if (::ftruncate(fd_, 0) == 0) [[maybe_unused]]
    const auto ignored = ::pwrite(fd_, text.data(), text.size(), 0);
  return "";
}

FolderLock::~FolderLock() {
  if (fd_ < 0) return;
  std::error_code ignored;
  // A folder that was replaced has taken its lock file along.
  if (is_file(fd_, file_)) fs::remove(file_, ignored);
  ::close(fd_);
  if (made_folder_) fs::remove(folder_, ignored);  // fails where something is in it
}

}  // namespace focus
