#include "file_bytes.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "focus/core/error.h"

namespace focus::formats {
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

}  // namespace

void advise(std::span<const std::byte> bytes, Access access) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  if (bytes.empty()) return;
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size();
  const int advice = access == Access::random ? MADV_RANDOM
                     : access == Access::soon ? MADV_WILLNEED
                                              : MADV_NORMAL;
  static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, advice));
}

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
  if (extension.starts_with(".part") && extension.size() > 5 &&
      extension.find_first_not_of("0123456789", 5) == std::string::npos) {
    advice_ = concat("this is one part of a split checkpoint: pass '",
                     (path.parent_path() / path.stem()).string(), "' to join all parts");
  }
  if (parts.size() > 1) {
    where_ = concat("'", path.string(), "' (", parts.size(), " parts)");
    advice_ =
        "a part is damaged, incomplete or missing: compare the parts' sizes with the publisher's and "
        "download them again";
  }
  if (parts.empty()) parts.push_back(path);
  try {
    for (const auto& part : parts) {
      const MappedFile& map = maps_.emplace_back(part);
      pieces_.emplace_back(map.data(), static_cast<std::size_t>(map.size()));
      files_.push_back({part, map.size()});
    }
  } catch (const DataError& error) {
    fail<WeightsError>(error.what());
  }
  place_pieces();
}

FileBytes::FileBytes(std::vector<std::span<const std::byte>> pieces, std::string where, std::string advice)
    : pieces_(std::move(pieces)), where_(std::move(where)), advice_(std::move(advice)) {
  FOCUS_CHECK(!pieces_.empty(), "no piece of ", where_);
  place_pieces();
}

void FileBytes::place_pieces() {
  for (const std::span<const std::byte> piece : pieces_) {
    begins_.push_back(size_);
    size_ += piece.size();
  }
}

std::size_t FileBytes::piece_at(std::uint64_t offset) const {
  // The last piece that begins at or before the offset; of several that begin there, all but the last are
  // empty.
  return static_cast<std::size_t>(std::upper_bound(begins_.begin(), begins_.end(), offset) -
                                  begins_.begin()) -
         1;
}

const std::byte* FileBytes::in_place(std::uint64_t offset, std::uint64_t num_bytes) const {
  FOCUS_CHECK(offset <= size_ && num_bytes <= size_ - offset, num_bytes, " bytes at ", offset, " of ", size_);
  const std::size_t piece = piece_at(offset);
  const std::uint64_t inside = offset - begins_[piece];
  return num_bytes <= pieces_[piece].size() - inside ? pieces_[piece].data() + inside : nullptr;
}

void FileBytes::copy(std::uint64_t offset, std::uint64_t num_bytes, void* to) const {
  FOCUS_CHECK(offset <= size_ && num_bytes <= size_ - offset, num_bytes, " bytes at ", offset, " of ", size_);
  auto* target = static_cast<std::byte*>(to);
  for (std::size_t piece = piece_at(offset); num_bytes > 0; ++piece) {
    const std::uint64_t inside = offset - begins_[piece];
    const std::uint64_t count = std::min<std::uint64_t>(num_bytes, pieces_[piece].size() - inside);
    if (count > 0) std::memcpy(target, pieces_[piece].data() + inside, static_cast<std::size_t>(count));
    target += count;
    offset += count;
    num_bytes -= count;
  }
}

std::span<const std::byte> FileBytes::contiguous(std::uint64_t offset, std::uint64_t num_bytes) {
  if (num_bytes == 0) return {};
  if (const std::byte* found = in_place(offset, num_bytes))
    return {found, static_cast<std::size_t>(num_bytes)};
  std::vector<std::byte>& made = copies_.emplace_back(static_cast<std::size_t>(num_bytes));
  copy(offset, num_bytes, made.data());
  return made;
}

void FileBytes::advise_all(Access access) const {
  for (const MappedFile& map : maps_) advise({map.data(), static_cast<std::size_t>(map.size())}, access);
}

void FileBytes::advise_range(std::uint64_t offset, std::uint64_t num_bytes, Access access) const {
  if (maps_.empty()) return;
  // A range across a boundary is not worth two hints.
  if (const std::byte* found = in_place(offset, num_bytes))
    advise({found, static_cast<std::size_t>(num_bytes)}, access);
}

}  // namespace focus::formats
