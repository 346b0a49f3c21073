// Indexed FASTA files: any slice of any record in one seek.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "focus/data/sequence_file.h"

namespace focus::data {

/// A plain or BGZF FASTA file with its index, read through htslib.
///
/// The index files beside the FASTA (.fai and, for BGZF, .gzi) are used when they are there. Missing ones are built and kept beside the
/// file, or only in memory where the folder cannot be written. A file that is opened is sound: every record has a unique name and at
/// least one base, and the index fits the file. fetch() may be called from several threads (calls take turns).
///
/// Throws DataError: file missing, empty, not FASTA, FASTQ, gzip that is not BGZF, duplicate names, empty records, lines of unequal
/// length, an index that belongs to another file.
class FastaFile final : public SequenceFile {
 public:
  explicit FastaFile(const std::filesystem::path& path);
  ~FastaFile() override;
  FastaFile(FastaFile&&) noexcept;
  FastaFile& operator=(FastaFile&&) noexcept;

 private:
  std::string read(const std::string& name, int64_t begin, int64_t end) const override;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What plain gzip may hold for programs that have no setting for it: a large genome.
inline constexpr int64_t kHeldFastaBytes = int64_t{4} << 30;

/// A FASTA file whatever its packing: plain and BGZF through the index, plain gzip unpacked into memory, which is said in the log.
/// DataError: as FastaFile; plain gzip with more than `limit_bytes` of sequence.
std::unique_ptr<SequenceFile> open_fasta(const std::filesystem::path& path, int64_t limit_bytes = kHeldFastaBytes);

/// A FASTA file in plain gzip, unpacked into memory. DataError: more than `limit_bytes` of sequence (`advice` then begins
/// what to do), and what FastaStream throws.
std::unique_ptr<SequenceFile> hold_fasta(const std::filesystem::path& path, int64_t limit_bytes,
                                         const std::string& advice);

/// Whether a file is gzip, but not BGZF: such FASTA can only be read from front to back. DataError when it does not exist.
bool is_plain_gzip(const std::filesystem::path& path);

}  // namespace focus::data
