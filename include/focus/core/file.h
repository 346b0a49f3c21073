// Files that appear whole or not at all, and small whole-file helpers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "focus/core/temporary.h"

namespace focus {

/// Told how many bytes were written since the last call, every few MB; it may throw to give the file up.
using WriteProgress = std::function<void(std::int64_t)>;

/// Writes to "<path>.tmp-<pid>" and renames to `path` in commit(); without commit() the temporary file is
/// removed (core/temporary.h). Every write is checked: a full disk or a missing folder throws DataError
/// naming the path and the system's reason. A device or pipe (/dev/null, a FIFO) and an open stream
/// (/dev/stdout, whatever it leads to) are written to directly, as they can be neither replaced nor taken
/// back. ConfigError: a name that promises packing (.gz, ...): nothing is packed on writing.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path, WriteProgress progress = {});
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* bytes, std::size_t num_bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Bytes written so far.
  std::int64_t size() const { return size_; }
  /// Path of the temporary file, for libraries that write by name (close() first).
  const std::filesystem::path& temporary() const { return temporary_ ? temporary_->path() : path_; }
  /// Closes the stream but keeps the temporary file for another writer.
  void close();
  /// Flushes to disk, closes and renames onto the final path.
  void commit();

 private:
  std::filesystem::path path_;
  std::optional<Temporary> temporary_;  // none where it is written directly
  WriteProgress progress_;
  int fd_ = -1;
  std::int64_t size_ = 0, told_ = 0;
  bool direct_ = false;
};

/// Whole file as a string; DataError when it is missing or unreadable.
std::string read_file(const std::filesystem::path& path);
/// Writes text through AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Read-only memory map of a whole file; an empty file maps to size 0. Throws DataError.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::byte* data() const { return data_; }
  std::int64_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace focus
