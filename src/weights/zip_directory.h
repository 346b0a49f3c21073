// The central directory of a zip of stored (uncompressed) entries, zip64 included, with every offset checked against the file.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "file_bytes.h"

namespace focus::weights {

class ZipDirectory {
 public:
  /// Throws WeightsError: no directory, compressed or encrypted entries, entries that leave the file, overlap or repeat a name.
  /// Keeps views into `file`, which must outlive it. CRC-32 fields are not compared: torch.save can be told to write none.
  explicit ZipDirectory(const FileBytes& file);

  /// Name -> content, both views of the file.
  const std::map<std::string_view, std::span<const std::byte>>& records() const { return records_; }

 private:
  std::map<std::string_view, std::span<const std::byte>> records_;
};

}  // namespace focus::weights
