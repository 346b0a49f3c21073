// The bytes of one checkpoint, whether it lies in one file or in NAME.part0, NAME.part1, ... Every file is
// mapped on its own, so a range is contiguous in memory unless a boundary between two parts cuts it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "focus/core/file.h"
#include "focus/formats/tensor_file.h"

namespace focus::formats {

/// How mapped bytes are about to be read. `random`: only what is asked for. Left alone, the system reads
/// ahead around every page, often megabytes, and looking at a few bytes of each tensor would read the whole
/// file. `soon`: begin to read now, without waiting.
enum class Access { in_order, random, soon };
/// A hint; what comes of it does not matter.
void advise(std::span<const std::byte> bytes, Access access);

class FileBytes {
 public:
  /// Maps `path`, or its parts when `path` does not exist. Throws WeightsError: nothing there, or not
  /// readable.
  explicit FileBytes(const std::filesystem::path& path);
  /// Bytes that something else holds and that outlive this object: an archive inside an archive.
  FileBytes(std::vector<std::span<const std::byte>> pieces, std::string where, std::string advice);
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  std::uint64_t size() const { return size_; }
  /// The files in order, each a contiguous piece.
  const std::vector<std::span<const std::byte>>& pieces() const { return pieces_; }

  // Ranges must lie within the file: the readers check what a file claims before they ask.
  /// Where a range lies in memory; nullptr where two parts share it.
  const std::byte* in_place(std::uint64_t offset, std::uint64_t num_bytes) const;
  /// Copies a range out, wherever it lies.
  void copy(std::uint64_t offset, std::uint64_t num_bytes, void* to) const;
  /// A range in place, or else a copy that this object keeps: for pickles and directories, which are read
  /// once, never for tensors.
  std::span<const std::byte> contiguous(std::uint64_t offset, std::uint64_t num_bytes);
  /// Hints for the whole file and for one range of it; without effect on bytes that are no file.
  void advise_all(Access access) const;
  void advise_range(std::uint64_t offset, std::uint64_t num_bytes, Access access) const;
  template <class T>
  T load(std::uint64_t offset) const {
    T value;
    copy(offset, sizeof value, &value);
    return value;
  }

  /// The files on the disk, in order.
  const std::vector<FilePart>& files() const { return files_; }
  /// How messages call the file: its quoted path, with the number of parts where there are several.
  const std::string& where() const { return where_; }
  /// One sentence to end a message about a damaged file with.
  const std::string& advice() const { return advice_; }

 private:
  void place_pieces();
  std::size_t piece_at(std::uint64_t offset) const;

  std::deque<MappedFile> maps_;
  std::vector<std::span<const std::byte>> pieces_;
  std::vector<FilePart> files_;
  std::vector<std::uint64_t> begins_;  // of the pieces, in the whole
  std::uint64_t size_ = 0;
  std::deque<std::vector<std::byte>> copies_;
  std::string where_, advice_;
};

}  // namespace focus::formats
