#include "score_table.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/core/log.h"
#include "focus/core/staged_folder.h"

namespace focus::cli {
namespace {

namespace fs = std::filesystem;

/// What cannot be renamed: standard output, devices, pipes, streams that are open already.
bool is_direct(const std::string& path) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  return path == "-" || path.starts_with("/dev/") || path.starts_with("/proc/") ||
         (fs::exists(status) && !fs::is_regular_file(status));
}

std::string text_of(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? read_file(path) : "";
}

}  // namespace

ScoreTable::ScoreTable(const std::string& path, bool resume) : path_(path) {
  if (is_direct(path)) {
    if (resume)
      fail<ConfigError>("--resume keeps the rows of an earlier --output, which must be a file, not '", path,
                        "'");
    direct_.emplace(path);
    return;
  }
  const AtomicFile can_be_written(path);  // by the rules of every output
  if (fs::is_symlink(path_))
    path_ = fs::weakly_canonical(path_);  // a link stays, and what it points to is replaced
  part_ = path_;
  part_ += ".part";
  fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0)
    fail<DataError>("cannot create '", part_.string(), "': ", std::strerror(errno),
                    "; check that the folder exists and is writable");
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(fd_);
    fail<DataError>("another run is writing '", part_.string(), "'; wait for it, or pass another --output");
  }
  if (!resume) {
    if (fs::file_size(part_) > 0)
      log::warn(
          concat("replacing '", part_.string(), "', the rows of an unfinished run; --resume keeps them"));
    return;
  }
  kept_ = text_of(part_);
  kept_in_part_ = !kept_.empty();
  if (!kept_in_part_) kept_ = text_of(path_);
}

ScoreTable::~ScoreTable() {
  if (fd_ < 0) return;
  const std::size_t rows = rows_.size() + static_cast<std::size_t>(written_);
  std::error_code ignored;
  if (written_ == 0 && !kept_in_part_) {
    fs::remove(part_, ignored);
  } else if (rows > 0) {
    log::warn(concat(rows, rows == 1 ? " row is" : " rows are", " in '", part_.string(),
                     "'; the same command with --resume goes on from there"));
  }
  ::close(fd_);
}

void ScoreTable::begin(const std::vector<std::string>& head) {
  std::size_t at = 0;
  const auto next_line = [&]() -> std::optional<std::string> {
    const std::size_t end = kept_.find('\n', at);
    if (end == std::string::npos) return std::nullopt;
    std::string line = kept_.substr(at, end + 1 - at);
    at = end + 1;
    return line;
  };
  bool whole = !kept_.empty();
  for (const std::string& expected : head) {
    const auto line = next_line();
    whole = whole && line;  // a run that was killed before its first row left nothing to keep
    if (!whole) break;
    const auto is_command = [](const std::string& text) { return text.starts_with("##command="); };
    if (*line != expected && !(is_command(*line) && is_command(expected)))
      fail<ConfigError>("--resume: '", (kept_in_part_ ? part_ : path_).string(),
                        "' has rows of another run: '", line->substr(0, line->size() - 1),
                        "' where this run has '", expected.substr(0, expected.size() - 1),
                        "'; start with the same settings, or without --resume for a new table");
  }
  if (whole) {
    while (const auto line = next_line()) rows_.push_back(*line);
    log::info(concat("resumed: ", rows_.size(), rows_.size() == 1 ? " row of '" : " rows of '",
                     (kept_in_part_ ? part_ : path_).string(), "' are kept"));
  }
  std::string text;
  if (direct_ || !whole) {
    for (const std::string& line : head) text += line;
  } else if (!kept_in_part_) {
    text = kept_.substr(0, at);
  }
  if (direct_) return direct_->write(text);
  // Half a row, which a killed run left at the end, goes.
  if (::ftruncate(fd_, whole && kept_in_part_ ? static_cast<off_t>(at) : 0) != 0)
    fail<DataError>("cannot write '", part_.string(), "': ", std::strerror(errno));
  kept_.clear();
  append(text);
}

bool ScoreTable::has(const std::string& key, const std::string& end) {
  if (next_ == rows_.size()) return false;
  const std::string& row = rows_[next_++];
  if (!row.starts_with(key) || !row.ends_with(end))
    fail<ConfigError>(
        "--resume: row ", next_, " of the table is of another sequence: '", row.substr(0, row.find('\t')),
        "' ...; this run has '", key.substr(0, key.find('\t')),
        "' there, or another stretch or strand of it; start with the same sequences in the same order, ",
        "or without --resume for a new table");
  return true;
}

void ScoreTable::write(const std::string& row) {
  direct_ ? direct_->write(row) : append(row);
  ++written_;
}

void ScoreTable::append(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t count = ::write(fd_, text.data() + at, text.size() - at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail<DataError>("cannot write '", part_.string(), "': ", std::strerror(errno));
    at += static_cast<std::size_t>(count);
  }
}

void ScoreTable::commit() {
  if (direct_) return direct_->commit();
  if (next_ < rows_.size())
    fail<ConfigError>("--resume: the table has ", rows_.size(), " rows, this run has ", next_,
                      " sequences; start with the same sequences, or without --resume for a new table");
  if (::fsync(fd_) != 0) fail<DataError>("cannot flush '", part_.string(), "': ", std::strerror(errno));
  std::error_code error;
  fs::rename(part_, path_, error);
  if (error)
    fail<DataError>("cannot rename '", part_.string(), "' to '", path_.string(), "': ", error.message());
  ::close(std::exchange(fd_, -1));
  if (!rows_.empty() && written_ == 0) log::info("all rows were there; nothing was scored");
}

}  // namespace focus::cli
