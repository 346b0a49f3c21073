#include "file_bytes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "focus/core/error.h"

namespace focus::weights {
namespace {

std::filesystem::path part_of(const std::filesystem::path& path, std::size_t number) {
  std::filesystem::path part = path;
  part += concat(".part", number);
  return part;
}

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

struct OpenPart {
  explicit OpenPart(const std::filesystem::path& from) : path(from), fd(::open(from.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat info {};
    if (fd < 0) fail<WeightsError>("cannot open '", path.string(), "': ", std::strerror(errno));
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(fd);
      fail<WeightsError>("cannot read '", path.string(), "': not a regular file");
    }
    size = static_cast<std::size_t>(info.st_size);
  }
  OpenPart(OpenPart&& other) noexcept : path(std::move(other.path)), fd(std::exchange(other.fd, -1)), size(other.size) {}
  ~OpenPart() {
    if (fd >= 0) ::close(fd);
  }

  void read_into(std::byte* target) const {
    std::size_t done = 0;
    while (done < size) {
      const ssize_t got = ::pread(fd, target + done, size - done, static_cast<off_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) fail<WeightsError>("cannot read '", path.string(), "' at byte ", done, ": ", got < 0 ? std::strerror(errno) : "file shrank");
      done += static_cast<std::size_t>(got);
    }
  }

  std::filesystem::path path;
  int fd;
  std::size_t size = 0;
};

}  // namespace

FileBytes::FileBytes(const std::filesystem::path& path) : where_(concat("'", path.string(), "'")) {
  std::vector<std::filesystem::path> parts;
  if (!is_there(path)) {
    while (is_there(part_of(path, parts.size()))) parts.push_back(part_of(path, parts.size()));
    if (parts.empty()) {
      fail<WeightsError>("no weights at ", where_, ", and no '", part_of(path, 0).string(),
                         "' either; check the path, or download the checkpoint first");
    }
  }
  advice_ = "the file is damaged or incomplete: compare its size with the publisher's and download it again";
  const std::string extension = path.extension().string();
  if (extension.rfind(".part", 0) == 0) {
    advice_ = concat("this is one part of a split checkpoint: pass '", (path.parent_path() / path.stem()).string(), "' to join all parts");
  }
  if (parts.size() > 1) {
    where_ = concat("'", path.string(), "' (", parts.size(), " parts)");
    advice_ = "a part is damaged, incomplete or missing: compare the parts' sizes with the publisher's and download them again";
    join(parts);
    return;
  }
  try {
    whole_.emplace(parts.empty() ? path : parts.front());
  } catch (const DataError& error) {
    fail<WeightsError>(error.what());
  }
  bytes_ = {whole_->data(), static_cast<std::size_t>(whole_->size())};
}

void FileBytes::join(const std::vector<std::filesystem::path>& paths) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<OpenPart> parts;
  bool aligned = true;
  for (const auto& path : paths) {
    // A part can be mapped at its place only where all before it fill whole pages.
    if (joined_bytes_ % page != 0) aligned = false;
    parts.emplace_back(path);
    joined_bytes_ += parts.back().size;
  }
  if (joined_bytes_ == 0) return;
  // NORESERVE: with mapped parts the range is only an address reservation.
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (aligned ? MAP_NORESERVE : 0);
  void* range = ::mmap(nullptr, joined_bytes_, aligned ? PROT_NONE : PROT_READ | PROT_WRITE, flags, -1, 0);
  if (range == MAP_FAILED) fail<MemoryError>("cannot reserve ", joined_bytes_, " bytes to join ", where_, ": ", std::strerror(errno));
  auto* cursor = static_cast<std::byte*>(range);
  try {
    for (const OpenPart& part : parts) {
      if (part.size == 0) continue;
      if (!aligned) {
        part.read_into(cursor);
      } else if (::mmap(cursor, part.size, PROT_READ, MAP_PRIVATE | MAP_FIXED, part.fd, 0) == MAP_FAILED) {
        fail<WeightsError>("cannot map '", part.path.string(), "': ", std::strerror(errno));
      }
      cursor += part.size;
    }
  } catch (...) {
    ::munmap(range, joined_bytes_);
    throw;
  }
  joined_ = range;
  bytes_ = {static_cast<const std::byte*>(range), joined_bytes_};
}

FileBytes::~FileBytes() {
  if (joined_ != nullptr) ::munmap(joined_, joined_bytes_);
}

}  // namespace focus::weights
