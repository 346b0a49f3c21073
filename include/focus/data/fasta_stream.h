// FASTA read once from front to back: standard input, pipes, plain gzip.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace focus::data {

struct FastaRecord {
  std::string name;      // first word of the header line
  std::string sequence;  // letters as in the file
};

/// Reads records in file order, plain or gzip; "-" is standard input. One record is held at a time. Regions need FastaFile.
/// Throws DataError, naming the line: cannot be opened or damaged, not FASTA, FASTQ, no record, a record without name or bases, a repeated
/// name.
class FastaStream {
 public:
  explicit FastaStream(const std::filesystem::path& path);
  ~FastaStream();
  /// False after the last record.
  bool next(FastaRecord& record);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace focus::data
