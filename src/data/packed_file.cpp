#include "packed_file.h"

#include <fcntl.h>
#include <htslib/hts_log.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "focus/core/error.h"
#include "focus/core/log.h"

namespace focus::data {
namespace fs = std::filesystem;

BgzfHandle open_bgzf(const fs::path& path) {
  static const bool quiet = (hts_set_log_level(HTS_LOG_OFF), true);
  static_cast<void>(quiet);
  const bool standard_input = path == "-";
  std::error_code ignored;
  if (!standard_input && fs::is_directory(path, ignored))
    fail<DataError>("'", path.string(), "' is a folder, not a file");
  // By descriptor, as htslib takes some names for addresses; a copy, as it closes what it is given.
  const int descriptor = standard_input ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0 && standard_input) fail<DataError>("cannot read standard input: ", std::strerror(errno));
  if (descriptor < 0)
    fail<DataError>("cannot open '", path.string(), "': ", std::strerror(errno),
                    "; check that the file exists and is readable");
  BgzfHandle file(bgzf_dopen(descriptor, "r"));
  if (!file) {
    ::close(descriptor);
    fail<DataError>("cannot read ", standard_input ? "standard input" : concat("'", path.string(), "'"));
  }
  return file;
}

PackedFile::PackedFile(const fs::path& path, std::optional<bool> allow_truncated)
    : file_(open_bgzf(path)),
      source_(path == "-" ? "standard input" : concat("'", path.string(), "'")),
      allow_truncated_(allow_truncated) {
  constexpr int kGzip = 1, kBgzf = 2;
  const int compression = bgzf_compression(file_.get());
  packing_ = compression == kBgzf ? Packing::bgzf : compression == kGzip ? Packing::gzip : Packing::plain;
  std::error_code ignored;
  if (packing_ == Packing::bgzf && fs::is_regular_file(path, ignored) && bgzf_check_EOF(file_.get()) == 0)
    missing_end_marker();
}

void PackedFile::missing_end_marker() {
  if (std::exchange(truncated_, true)) return;
  static std::mutex mutex;
  static std::set<std::string> told;
  const std::string what = concat(
      source_, " is BGZF without its end-of-file marker: it was cut short, as by a broken download or copy");
  if (!allow_truncated_.value_or(false))
    fail<DataError>(what, "; get it again",
                    allow_truncated_ ? ", or accept what is there with --allow-truncated (allow_truncated in "
                                       "a configuration)"
                                     : "");
  const std::lock_guard lock(mutex);  // said once, however often the file is opened
  if (told.insert(source_).second) log::warn(concat(what, "; what is there is read, as asked"));
}

std::size_t PackedFile::read(char* bytes, std::size_t count) {
  const ssize_t got = bgzf_read(file_.get(), bytes, count);
  if (got < 0) fail<DataError>("cannot read ", source_, ": the file is damaged or cut short");
  // Set by htslib where the last block of all is not the marker: the only sign of it in a pipe.
  if (packing_ == Packing::bgzf && static_cast<std::size_t>(got) < count && file_->no_eof_block != 0)
    missing_end_marker();
  return static_cast<std::size_t>(got);
}

}  // namespace focus::data
