#include "focus/core/staged_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "focus/core/error.h"

namespace focus {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void failed(const fs::path& path, const fs::filesystem_error& error) {
  fail<DataError>("cannot write '", path.string(), "': ", error.code().message(),
                  "; check that its folder is writable");
}

}  // namespace

StagedFolder::StagedFolder(fs::path path) : path_(std::move(path)) {
  try {
    // The sibling and the rename concern the folder itself.
    path_ = fs::weakly_canonical(fs::absolute(path_));
    if (path_.filename().empty()) path_ = path_.parent_path();
    temporary_.emplace(concat(path_.string(), ".tmp-", ::getpid()));
    fs::create_directories(path_.parent_path());
    fs::remove_all(temporary());
    fs::create_directory(temporary());
  } catch (const fs::filesystem_error& error) {
    failed(path_, error);
  }
}

void StagedFolder::commit() {
  sync_folder(temporary());
  take_place(temporary());
}

void StagedFolder::commit(const std::string& name) {
  const fs::path staged = temporary() / name;
  if (fs::is_directory(staged)) sync_folder(staged);
  take_place(staged);
  std::error_code ignored;
  fs::remove_all(temporary(), ignored);
}

void StagedFolder::take_place(const fs::path& from) {
  const auto held = hold_temporaries();
  const Temporary old(concat(temporary().string(), "-old"));
  try {
    fs::remove_all(old.path());
    const bool replaces = fs::is_directory(path_);  // a file is replaced by the rename itself
    if (replaces) fs::rename(path_, old.path());
    try {
      fs::rename(from, path_);
    } catch (const fs::filesystem_error&) {
      std::error_code ignored;
      if (replaces) fs::rename(old.path(), path_, ignored);
      throw;
    }
    sync_folder(path_.parent_path());
    if (replaces) fs::remove_all(old.path());
  } catch (const fs::filesystem_error& error) {
    failed(path_, error);
  }
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // Some network file systems refuse to sync folders; the files themselves are synced already.
  const bool refused = fd < 0 || (::fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP);
  const std::string reason = refused ? std::strerror(errno) : "";
  if (fd >= 0) ::close(fd);
  if (refused) fail<DataError>("cannot flush folder '", folder.string(), "': ", reason);
}

}  // namespace focus
