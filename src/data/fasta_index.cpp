#include "fasta_index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <unordered_set>

#include "focus/core/error.h"
#include "focus/core/file.h"
#include "focus/data/letters.h"

namespace focus::data {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kMaxBlock = 1 << 16;    // bytes of a BGZF block, packed or not
constexpr int64_t kLongestGap = 1 << 20;  // bytes between two records: a header line, blank lines
constexpr int64_t kMost =
    int64_t{1} << 48;  // of anything in an index, so that sums and products stay numbers

uint64_t little_endian(const char* bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// Up to `count` bytes of a file; -1 on failure.
int64_t read_bytes(int file, char* bytes, int64_t count, int64_t offset) {
  int64_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(file, bytes + done, static_cast<std::size_t>(count - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += got;
  }
  return done;
}

}  // namespace

RandomFile::RandomFile(const fs::path& path, Packing packing, const fs::path& gzi, bool trust_gzi)
    : source_(concat("'", path.string(), "'")) {
  if (packing == Packing::bgzf) bgzf_ = open_bgzf(path);
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (file_ < 0 || ::fstat(file_, &status) != 0)
    fail<DataError>("cannot open ", source_, ": ", std::strerror(errno));
  size_ = status.st_size;
  if (bgzf_ && (!trust_gzi || !load_gzi(gzi))) walk_blocks();
}

RandomFile::~RandomFile() {
  if (file_ >= 0) ::close(file_);
}

bool RandomFile::load_gzi(const fs::path& gzi) {
  std::string bytes;
  try {
    bytes = read_file(gzi);
  } catch (const DataError&) {
    return false;
  }
  constexpr std::size_t kPair = 16;
  if (bytes.size() < 8 || bytes.size() % kPair != 8 || little_endian(bytes.data(), 8) != bytes.size() / kPair)
    return false;
  blocks_ = {BgzfBlock{}};
  for (std::size_t at = 8; at < bytes.size(); at += kPair) {
    const BgzfBlock block{static_cast<int64_t>(little_endian(bytes.data() + at, 8)),
                          static_cast<int64_t>(little_endian(bytes.data() + at + 8, 8))};
    const int64_t packed = block.packed - blocks_.back().packed,
                  unpacked = block.unpacked - blocks_.back().unpacked;
    if (block.packed > size_ || packed < 1 || packed > kMaxBlock || unpacked < 0 || unpacked > kMaxBlock)
      return false;
    blocks_.push_back(block);
  }
  // The list must reach the file's end, where the marker may be listed or not.
  int64_t end = blocks_.back().packed;
  for (int left = 2; left > 0 && end < size_; --left) {
    const int64_t size = block_size(end);
    if (size == 0) return false;
    end += size;
  }
  return end == size_;
}

int64_t RandomFile::block_size(int64_t packed) const {
  std::array<char, 18> header{};
  if (read_bytes(file_, header.data(), header.size(), packed) != static_cast<int64_t>(header.size()))
    return 0;
  constexpr std::string_view kMagic("\x1f\x8b\x08\x04", 4), kField("BC\x02\x00", 4);
  if (std::string_view(header.data(), 4) != kMagic || std::string_view(header.data() + 12, 4) != kField)
    return 0;
  const auto size = static_cast<int64_t>(little_endian(header.data() + 16, 2)) + 1;
  return packed + size <= size_ ? size : 0;
}

void RandomFile::walk_blocks() {
  gzi_is_new_ = true;
  blocks_ = {BgzfBlock{}};
  while (true) {
    const BgzfBlock block = blocks_.back();
    if (block.packed == size_) break;
    const int64_t size = block_size(block.packed);
    std::array<char, 4> unpacked{};
    if (size < 28 || read_bytes(file_, unpacked.data(), 4, block.packed + size - 4) != 4)
      fail<DataError>("cannot read ", source_, ": no BGZF block at byte ", block.packed,
                      "; the file is damaged or cut short");
    const auto count = static_cast<int64_t>(little_endian(unpacked.data(), 4));
    if (count > kMaxBlock)
      fail<DataError>("cannot read ", source_, ": the BGZF block at byte ", block.packed, " is damaged");
    blocks_.push_back({block.packed + size, block.unpacked + count});
  }
  if (blocks_.size() > 1) blocks_.pop_back();
}

std::string RandomFile::gzi() const {
  std::string out;
  const auto put = [&](int64_t value) {
    for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xFF);
  };
  put(static_cast<int64_t>(blocks_.size()) - 1);
  for (std::size_t i = 1; i < blocks_.size(); ++i) {
    put(blocks_[i].packed);
    put(blocks_[i].unpacked);
  }
  return out;
}

bool RandomFile::block_fits(std::size_t index) const {
  const BgzfBlock& block = blocks_[index];
  const int64_t size = block_size(block.packed);
  if (size == 0) return false;
  if (index + 1 == blocks_.size()) return true;
  std::array<char, 4> unpacked{};
  return block.packed + size == blocks_[index + 1].packed &&
         read_bytes(file_, unpacked.data(), 4, block.packed + size - 4) == 4 &&
         static_cast<int64_t>(little_endian(unpacked.data(), 4)) ==
             blocks_[index + 1].unpacked - block.unpacked;
}

void RandomFile::seek(int64_t offset) {
  // A little ahead is nearer by reading on: records of a few hundred bases are then read in one pass.
  if (offset < position_ || offset > position_ + 2 * kMaxBlock) {
    const auto block_of = [&] {
      const auto after =
          std::upper_bound(blocks_.begin(), blocks_.end(), offset,
                           [](int64_t at, const BgzfBlock& block) { return at < block.unpacked; });
      return static_cast<std::size_t>(after - blocks_.begin()) - 1;
    };
    std::size_t index = block_of();
    if (!block_fits(index)) {
      walk_blocks();
      index = block_of();
    }
    if (bgzf_seek(bgzf_.get(), blocks_[index].packed << 16, SEEK_SET) != 0)
      fail<DataError>("cannot read ", source_, ": no BGZF block at byte ", blocks_[index].packed);
    position_ = blocks_[index].unpacked;
  }
  std::array<char, 1 << 14> skipped;
  while (position_ < offset) {
    const ssize_t got = bgzf_read(bgzf_.get(), skipped.data(),
                                  std::min(skipped.size(), static_cast<std::size_t>(offset - position_)));
    if (got < 0) fail<DataError>("cannot read ", source_, ": the file is damaged or cut short");
    if (got == 0) return;
    position_ += got;
  }
}

std::string RandomFile::read(int64_t offset, int64_t count) {
  std::string bytes(static_cast<std::size_t>(count), '\0');
  int64_t got = 0;
  if (bgzf_) {
    seek(offset);
    if (position_ == offset) got = bgzf_read(bgzf_.get(), bytes.data(), bytes.size());
    position_ += std::max<int64_t>(got, 0);
  } else {
    got = read_bytes(file_, bytes.data(), count, offset);
  }
  if (got < 0) fail<DataError>("cannot read ", source_, ": the file is damaged or cut short");
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

bool read_fai(std::string_view text, std::vector<FastaEntry>& entries) {
  std::unordered_set<std::string_view> seen;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t stop = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, stop - begin);
    begin = stop + 1;
    const std::size_t tab = line.find('\t');
    if (tab == line.npos || !is_record_name(line.substr(0, tab)) || !seen.insert(line.substr(0, tab)).second)
      return false;
    FastaEntry entry;
    entry.name = line.substr(0, tab);
    const char* cursor = line.data() + tab;
    for (int64_t* const number : {&entry.length, &entry.offset, &entry.line_bases, &entry.line_bytes}) {
      if (cursor == line.data() + line.size() || *cursor != '\t') return false;
      const auto [next, error] = std::from_chars(cursor + 1, line.data() + line.size(), *number);
      if (error != std::errc() || *number < 1 || *number > kMost) return false;
      cursor = next;
    }
    if (cursor != line.data() + line.size()) return false;
    entries.push_back(std::move(entry));
  }
  return !entries.empty();
}

std::string write_fai(const std::vector<FastaEntry>& entries) {
  std::string out;
  for (const FastaEntry& e : entries)
    out += concat(e.name, '\t', e.length, '\t', e.offset, '\t', e.line_bases, '\t', e.line_bytes, '\n');
  return out;
}

namespace {

/// Whether `gap` is what may stand between two records: the rest of the last line, blank lines, and a header
/// line of `name`. Counts its lines, up to and with the header line.
bool is_gap(std::string_view gap, std::string_view name, int64_t& line) {
  std::size_t at = 0;
  for (; at < gap.size() && gap[at] != '>'; ++at) {
    const char c = gap[at];
    if (c == '\n') {
      ++line;
    } else if (c == '\r') {
      if (at + 1 == gap.size() || gap[at + 1] != '\n') return false;
    } else if (c != ' ' && c != '\t') {
      return false;
    }
  }
  if (at == gap.size() || (at > 0 && gap[at - 1] != '\n') || gap.back() != '\n') return false;
  std::string_view header = gap.substr(at + 1);
  header.remove_suffix(1);
  if (header.ends_with('\r')) header.remove_suffix(1);
  if (header.find_first_of(std::string_view("\n\r\0", 3)) != header.npos) return false;
  return header.substr(0, header.find_first_of(" \t")) == name;
}

}  // namespace

std::string check_fai(RandomFile& file, std::vector<FastaEntry>& entries) {
  int64_t last_base = -1, line = 1;  // of what is accounted for
  if (file.read(0, static_cast<int64_t>(kByteOrderMark.size())) == kByteOrderMark)
    last_base += static_cast<int64_t>(kByteOrderMark.size());
  bool first = true;
  for (FastaEntry& entry : entries) {
    const std::string misplaced = concat("record '", entry.name, "' does not begin at byte ", entry.offset);
    const int64_t end_bytes = entry.line_bytes - entry.line_bases;
    // With CR LF a blank in a line would not show at the record's end.
    if (end_bytes != 1)
      return concat("its lines have ", end_bytes,
                    " bytes besides their bases, so that it can only be checked line by line");
    const int64_t begin = first ? last_base + 1 : last_base, gap = entry.offset - begin;
    if (gap < 2 || gap > kLongestGap) return misplaced;
    std::string bytes = file.read(begin, gap + 1);
    if (static_cast<int64_t>(bytes.size()) != gap + 1 || !is_nucleotide(static_cast<uint8_t>(bytes.back())))
      return misplaced;
    bytes.pop_back();
    if (!first) {
      if (!is_nucleotide(static_cast<uint8_t>(bytes.front()))) return misplaced;
      bytes.erase(0, 1);
    }
    if (!is_gap(bytes, entry.name, line)) return misplaced;
    if (entry.length > entry.line_bases) {
      const std::string first_end = file.read(entry.offset + entry.line_bases - 1, 2);
      if (first_end.size() != 2 || !is_nucleotide(static_cast<uint8_t>(first_end[0])) || first_end[1] != '\n')
        return concat("record '", entry.name, "' has no lines of ", entry.line_bases, " bases");
    }
    entry.line = line;
    line += 1 + (entry.length - 1) / entry.line_bases;
    last_base = entry.offset + (entry.length - 1) / entry.line_bases * entry.line_bytes +
                (entry.length - 1) % entry.line_bases;
    first = false;
  }
  constexpr int64_t kPiece = 4096;
  std::string tail = file.read(last_base, kPiece);
  if (tail.empty() || !is_nucleotide(static_cast<uint8_t>(tail.front())))
    return "its last record does not end in a base";
  tail.erase(0, 1);
  for (int64_t at = last_base + 1; !tail.empty(); tail = file.read(at, kPiece)) {
    if (tail.find_first_not_of("\n \t") != tail.npos) return "the file goes on behind its last record";
    at += static_cast<int64_t>(tail.size());
  }
  return {};
}

}  // namespace focus::data
