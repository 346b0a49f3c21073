#include "focus/core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "focus/core/error.h"

namespace focus {
namespace {
std::string reason() { return std::strerror(errno); }

// The most that is written between two calls of a WriteProgress.
constexpr std::size_t kProgressBytes = std::size_t{8} << 20;

/// A stream that is open already; what is behind it may be a regular file that others write to as well.
bool is_open_stream(const std::string& path) {
  return path == "/dev/stdout" || path == "/dev/stderr" || path.starts_with("/dev/fd/") ||
         path.starts_with("/proc/self/fd/");
}

/// Nothing is packed on writing, and what reads such a name goes by it.
void refuse_packed_name(const std::filesystem::path& path) {
  for (const char* ending : {".gz", ".bgz", ".bz2", ".xz", ".zst", ".zip"}) {
    if (path.extension() == ending)
      fail<ConfigError>("'", path.string(),
                        "' promises a packed file, but it would be written as it is; leave off '", ending,
                        "' and pack it afterwards");
  }
}
}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path, WriteProgress progress)
    : path_(std::move(path)), progress_(std::move(progress)) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path_, ignored);
  if (std::filesystem::is_directory(status))
    fail<DataError>("cannot write '", path_.string(), "': it is a folder; name a file");
  direct_ = std::filesystem::exists(status) &&
            (!std::filesystem::is_regular_file(status) || is_open_stream(path_.string()));
  if (!direct_) refuse_packed_name(path_);
  // A link stays, and what it points to is replaced.
  if (!direct_ && std::filesystem::is_symlink(path_, ignored))
    path_ = std::filesystem::weakly_canonical(path_);
  if (!direct_) temporary_.emplace(concat(path_.string(), ".tmp-", ::getpid()));
  fd_ = ::open(temporary().c_str(),
               direct_ ? O_WRONLY | O_APPEND | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0)
    fail<DataError>("cannot create '", temporary().string(), "': ", reason(),
                    "; check that the folder exists and is writable");
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
}

void AtomicFile::write(const void* bytes, std::size_t num_bytes) {
  FOCUS_CHECK(fd_ >= 0, "write after close of ", path_.string());
  const char* cursor = static_cast<const char*>(bytes);
  while (num_bytes > 0) {
    const ssize_t written = ::write(fd_, cursor, progress_ ? std::min(num_bytes, kProgressBytes) : num_bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail<DataError>("cannot write '", path_.string(), "': ", reason(),
                      direct_ ? "" : "; nothing was left under that name");
    }
    cursor += written;
    num_bytes -= static_cast<std::size_t>(written);
    size_ += written;
    if (progress_ && size_ - told_ >= static_cast<std::int64_t>(kProgressBytes)) {
      progress_(size_ - told_);
      told_ = size_;
    }
  }
}

void AtomicFile::close() {
  if (fd_ < 0) return;
  if (progress_ && size_ > told_) {
    progress_(size_ - told_);
    told_ = size_;
  }
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) fail<DataError>("cannot close '", temporary().string(), "': ", reason());
}

void AtomicFile::commit() {
  if (direct_) return close();
  if (fd_ < 0) fd_ = ::open(temporary().c_str(), O_WRONLY | O_CLOEXEC);
  if (fd_ < 0 || ::fsync(fd_) != 0) fail<DataError>("cannot flush '", temporary().string(), "': ", reason());
  close();
  std::error_code error;
  std::filesystem::rename(temporary(), path_, error);
  if (error)
    fail<DataError>("cannot rename '", temporary().string(), "' to '", path_.string(),
                    "': ", error.message());
  temporary_.reset();
}

std::string read_file(const std::filesystem::path& path) {
  const MappedFile mapped(path);
  return std::string(reinterpret_cast<const char*>(mapped.data()), static_cast<std::size_t>(mapped.size()));
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail<DataError>("cannot open '", path.string(), "': ", reason());
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    fail<DataError>("cannot read '", path.string(), "': not a regular file");
  }
  size_ = info.st_size;
  if (size_ > 0) {
    void* address = ::mmap(nullptr, static_cast<std::size_t>(size_), PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      const std::string why = reason();
      ::close(fd);
      fail<DataError>("cannot map '", path.string(), "': ", why);
    }
    data_ = static_cast<const std::byte*>(address);
  }
  ::close(fd);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_));
}

}  // namespace focus
