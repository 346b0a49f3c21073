// FASTA read once from front to back: standard input, files of any packing.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace focus::data {

struct FastaRecord {
  std::string name;      // first word of the header line
  std::string sequence;  // letters as in the file
};

/// Reads records in file order; "-" is standard input. One record is held at a time. Regions need
/// open_fasta(), which says what a file may hold. Throws DataError: cannot be opened, damaged or cut short
/// (BGZF without its end-of-file marker: unless `allow_truncated`), unsound.
class FastaStream {
 public:
  explicit FastaStream(const std::filesystem::path& path, bool allow_truncated = false);
  ~FastaStream();
  /// False after the last record.
  bool next(FastaRecord& record);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace focus::data
