// Indexed FASTA files: any slice of any record in one seek.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace focus::data {

/// A plain or BGZF FASTA file with its index, read through htslib.
///
/// The index files beside the FASTA (.fai and, for BGZF, .gzi) are used when they are there. Missing ones are built and kept beside the
/// file, or only in memory where the folder cannot be written. A file that is opened is sound: every record has a unique name and at
/// least one base, and the index fits the file. fetch() may be called from several threads (calls take turns).
///
/// Throws DataError: file missing, empty, not FASTA, FASTQ, gzip that is not BGZF, duplicate names, empty records, lines of unequal
/// length, an index that belongs to another file.
class FastaFile {
 public:
  explicit FastaFile(const std::filesystem::path& path);
  ~FastaFile();
  FastaFile(FastaFile&&) noexcept;
  FastaFile& operator=(FastaFile&&) noexcept;

  const std::filesystem::path& path() const;
  /// Record names in file order (the first word of each header line).
  const std::vector<std::string>& names() const;
  bool contains(std::string_view name) const;
  /// Bases of a record; DataError with the nearest known name when there is no such record.
  int64_t length(std::string_view name) const;
  /// Bases of all records together.
  int64_t total_length() const;
  /// Bases [begin, end) of a record, 0-based, letters as in the file (case kept). begin == end gives "". DataError when the record is
  /// unknown or the range leaves it.
  std::string fetch(std::string_view name, int64_t begin, int64_t end) const;
  /// A whole record.
  std::string fetch(std::string_view name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The entry of `known` nearest to `name`, counting edits and ignoring case; names that differ only by a leading "chr" come first.
/// "" when nothing is near. For error messages.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace focus::data
