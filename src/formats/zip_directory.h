// The central directory of a zip of stored (uncompressed) entries, zip64 included, with every offset checked
// against the file.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>

#include "file_bytes.h"

namespace focus::formats {

/// Where an entry's content lies in the file; always inside it.
struct ZipRecord {
  std::uint64_t offset = 0, num_bytes = 0;
};

class ZipDirectory {
 public:
  /// Throws WeightsError: no directory, compressed or encrypted entries, entries that leave the file, overlap
  /// or repeat a name. Keeps views into `file`, which must outlive it. CRC-32 fields are not compared:
  /// torch.save can be told to write none.
  explicit ZipDirectory(FileBytes& file);

  /// By name; the names are views of the file.
  const std::map<std::string_view, ZipRecord>& records() const { return records_; }

 private:
  std::map<std::string_view, ZipRecord> records_;
};

}  // namespace focus::formats
