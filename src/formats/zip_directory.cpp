#include "zip_directory.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "focus/core/error.h"
#include "little_endian.h"
#include "printable.h"

namespace focus::formats {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50;
constexpr std::uint32_t kCentralHeader = 0x02014b50;
constexpr std::uint32_t kEndRecord = 0x06054b50;
constexpr std::uint32_t kZip64EndRecord = 0x06064b50;
constexpr std::uint32_t kZip64Locator = 0x07064b50;
constexpr std::size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kZip64EndBytes = 56,
                      kLocatorBytes = 20;
constexpr std::size_t kMaxComment = 0xffff;
constexpr std::uint32_t kIn64 = 0xffffffff;

/// An entry as the directory has it; its header begins inside the file.
struct Listed {
  std::string_view name;
  std::uint64_t offset, size;
};

struct Extent {
  std::uint64_t begin, end;
  std::string_view name;
};

class Parser {
 public:
  Parser(FileBytes& file, std::map<std::string_view, ZipRecord>& records) : file_(file), records_(records) {}

  void parse() {
    read_end();
    if (directory_size_ > directory_limit_ || directory_offset_ > directory_limit_ - directory_size_) {
      broken("its zip directory (", directory_size_, " bytes at ", directory_offset_, ") does not fit into ",
             file_.size(), " bytes");
    }
    if (num_entries_ > directory_size_ / kCentralBytes) {
      broken("its zip directory of ", directory_size_, " bytes cannot hold the ", num_entries_,
             " entries it announces");
    }
    directory_ = file_.contiguous(directory_offset_, directory_size_);
    std::size_t cursor = 0;
    for (std::uint64_t i = 0; i < num_entries_; ++i) read_entry(cursor, i);
    if (cursor != directory_.size())
      broken("its zip directory has ", directory_.size() - cursor, " bytes after the last entry");
    // Each entry's own header lies before its data: all are asked for at once, so that a disk or network
    // serves them side by side.
    for (const Listed& entry : listed_) file_.advise_range(entry.offset, kLocalBytes, Access::soon);
    for (const Listed& entry : listed_) add_record(entry);
    check_overlaps();
  }

 private:
  template <class... Args>
  [[noreturn]] void broken(const Args&... args) const {
    fail<WeightsError>(file_.where(), ": ", args..., "; ", file_.advice());
  }

  // Of the directory.
  std::uint16_t u16(std::size_t at) const { return load_little<std::uint16_t>(directory_.data() + at); }
  std::uint32_t u32(std::size_t at) const { return load_little<std::uint32_t>(directory_.data() + at); }
  std::uint64_t u64(std::size_t at) const { return load_little<std::uint64_t>(directory_.data() + at); }

  /// Offset of the end record. Only its own comment follows it.
  std::uint64_t find_end() {
    if (file_.size() < kEndBytes) broken("only ", file_.size(), " bytes, too short for a zip");
    const std::uint64_t last = file_.size() - kEndBytes;
    const std::uint64_t first = last > kMaxComment ? last - kMaxComment : 0;
    const std::span<const std::byte> tail = file_.contiguous(first, file_.size() - first);
    for (std::uint64_t at = last + 1; at-- > first;) {
      const std::byte* record = tail.data() + (at - first);
      if (load_little<std::uint32_t>(record) == kEndRecord &&
          load_little<std::uint16_t>(record + 20) == last - at)
        return at;
    }
    broken("begins like a zip, but has no zip directory at its end");
  }

  void read_end() {
    const std::uint64_t end = find_end();
    directory_limit_ = end;
    num_entries_ = file_.load<std::uint16_t>(end + 10);
    directory_size_ = file_.load<std::uint32_t>(end + 12);
    directory_offset_ = file_.load<std::uint32_t>(end + 16);
    if (end < kLocatorBytes || file_.load<std::uint32_t>(end - kLocatorBytes) != kZip64Locator) return;
    const auto record = file_.load<std::uint64_t>(end - kLocatorBytes + 8);
    const std::uint64_t limit = end - kLocatorBytes;
    if (limit < kZip64EndBytes || record > limit - kZip64EndBytes ||
        file_.load<std::uint32_t>(record) != kZip64EndRecord) {
      broken("its zip64 end record (at ", record, ") is missing");
    }
    directory_limit_ = record;
    num_entries_ = file_.load<std::uint64_t>(record + 32);
    directory_size_ = file_.load<std::uint64_t>(record + 40);
    directory_offset_ = file_.load<std::uint64_t>(record + 48);
  }

  void read_entry(std::size_t& cursor, std::uint64_t number) {
    const std::size_t stop = directory_.size();
    if (stop - cursor < kCentralBytes || u32(cursor) != kCentralHeader)
      broken("zip entry ", number, " of ", num_entries_, " is malformed");
    const std::size_t name_bytes = u16(cursor + 28), extra_bytes = u16(cursor + 30),
                      comment_bytes = u16(cursor + 32);
    if (stop - cursor - kCentralBytes < name_bytes + extra_bytes + comment_bytes)
      broken("zip entry ", number, " leaves the directory");
    const std::string_view name(reinterpret_cast<const char*>(directory_.data()) + cursor + kCentralBytes,
                                name_bytes);
    const unsigned flags = u16(cursor + 8), method = u16(cursor + 10);
    std::uint64_t stored = u32(cursor + 20), size = u32(cursor + 24), offset = u32(cursor + 42);
    read_zip64(cursor + kCentralBytes + name_bytes, extra_bytes, name, size, stored, offset);
    if ((flags & 1U) != 0)
      fail<WeightsError>(file_.where(), ": zip entry ", printable(name),
                         " is encrypted; save the file again without encryption");
    if (method != 0) {
      fail<WeightsError>(file_.where(), ": zip entry ", printable(name), " is compressed (method ", method,
                         "), expected stored entries as torch.save writes them; load the file in Python and "
                         "torch.save it again");
    }
    if (stored != size)
      broken("zip entry ", printable(name), " is stored in ", stored, " bytes but has ", size);
    // All data lies before the directory; subtractions instead of sums, because the file may ask for sums
    // beyond 64 bits.
    const std::uint64_t limit = directory_offset_;
    if (limit < kLocalBytes || offset > limit - kLocalBytes) {
      broken("zip entry ", printable(name), " points to byte ", offset, ", where no entry begins");
    }
    listed_.push_back({name, offset, size});
    cursor += kCentralBytes + name_bytes + extra_bytes + comment_bytes;
  }

  void read_zip64(std::size_t at, std::size_t num_bytes, std::string_view name, std::uint64_t& size,
                  std::uint64_t& stored, std::uint64_t& offset) const {
    const std::size_t stop = at + num_bytes;
    while (stop - at >= 4) {
      const unsigned id = u16(at);
      const std::size_t length = u16(at + 2);
      at += 4;
      if (length > stop - at)
        broken("an extra field of zip entry ", printable(name), " is longer than its header");
      if (id == 1) {
        std::size_t field = at;
        for (std::uint64_t* value : {&size, &stored, &offset}) {
          if (*value != kIn64) continue;
          if (at + length - field < 8) broken("the zip64 field of entry ", printable(name), " is too short");
          *value = u64(field);
          field += 8;
        }
        return;
      }
      at += length;
    }
  }

  void add_record(const Listed& entry) {
    const auto& [name, offset, size] = entry;
    if (file_.load<std::uint32_t>(offset) != kLocalHeader) {
      broken("zip entry ", printable(name), " points to byte ", offset, ", where no entry begins");
    }
    const std::uint64_t name_bytes = file_.load<std::uint16_t>(offset + 26),
                        extra_bytes = file_.load<std::uint16_t>(offset + 28);
    const std::uint64_t room = directory_offset_ - offset - kLocalBytes;
    if (room < name_bytes + extra_bytes || room - name_bytes - extra_bytes < size) {
      broken("zip entry ", printable(name), " needs ", size, " bytes, more than the file has after byte ",
             offset);
    }
    std::string local_name(name_bytes, '\0');
    file_.copy(offset + kLocalBytes, name_bytes, local_name.data());
    if (local_name != name) broken("zip entry ", printable(name), " has another name in its own header");
    const std::uint64_t begin = offset + kLocalBytes + name_bytes + extra_bytes;
    if (!records_.emplace(name, ZipRecord{begin, size}).second)
      broken("two zip entries are called ", printable(name));
    extents_.push_back({offset, begin + size, name});
  }

  void check_overlaps() {
    std::sort(extents_.begin(), extents_.end(),
              [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < extents_.size(); ++i) {
      if (extents_[i].begin < extents_[i - 1].end) {
        broken("zip entries ", printable(extents_[i - 1].name), " and ", printable(extents_[i].name),
               " overlap");
      }
    }
  }

  FileBytes& file_;
  std::map<std::string_view, ZipRecord>& records_;
  std::span<const std::byte> directory_;
  std::vector<Listed> listed_;
  std::vector<Extent> extents_;
  std::uint64_t directory_limit_ = 0, num_entries_ = 0, directory_size_ = 0, directory_offset_ = 0;
};

}  // namespace

ZipDirectory::ZipDirectory(FileBytes& file) { Parser(file, records_).parse(); }

}  // namespace focus::formats
