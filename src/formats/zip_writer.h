// A zip of stored entries whose data begin at multiples of 64 bytes, so that a reader can map tensors in
// place.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "focus/core/file.h"

namespace focus::formats {

class ZipWriter {
 public:
  static constexpr std::int64_t kAlignment = 64;

  explicit ZipWriter(AtomicFile& file) : file_(file) {}

  /// Names of at most 65,535 bytes. The content is read once.
  void add(const std::string& name, std::string_view content);
  void finish();

 private:
  void list(const std::string& name, std::uint32_t crc, std::uint64_t size, std::uint64_t offset);

  AtomicFile& file_;
  std::string directory_;
  std::uint64_t num_entries_ = 0;
};

}  // namespace focus::formats
