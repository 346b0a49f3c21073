// FASTA files: any slice of any record.
//
// What such a file may hold is the same however it is packed and read (FastaStream reads it once from front
// to back): a record is a header line, '>' directly followed by a name, and lines of letters of the
// nucleotide code (is_nucleotide). Lines end with LF or CR LF; blanks and tabs in sequence lines, blank
// lines, and a byte order mark at the start are skipped. Anything else is a DataError that names the line; a
// wrong byte also its column, its record and its position in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "focus/data/sequence_file.h"

namespace focus::data {

struct FastaOptions {
  /// Most bases that a file may bring into memory where it cannot be indexed. The default is a large genome.
  int64_t held_bases = int64_t{4} << 30;
  std::string advice;            // what else to do where that is too little; begins the end of the message
  bool allow_truncated = false;  // BGZF without its end-of-file marker is a warning, not an error
};

/// A file whose records are found through its index, read through htslib. The index files beside the FASTA
/// (.fai and, for BGZF, .gzi) are held against it; missing, older or wrong ones are built and kept beside the
/// file, or only in memory where the folder cannot be written. fetch() may be called from several threads
/// (calls take turns).
///
/// A null pointer where records cannot be found by arithmetic: plain gzip, lines of unequal length, blanks in
/// lines. `why_not` then says so, to follow the file's name. Throws DataError: file missing, empty, no
/// regular file, not FASTA, damaged or cut short, unsound.
std::unique_ptr<SequenceFile> index_fasta(const std::filesystem::path& path, bool allow_truncated,
                                          std::string& why_not);

/// As index_fasta, and what cannot be indexed is read into memory, which is said in the log; of a folder all
/// of its FASTA files (open_sequence_folder). DataError too: that is more than options.held_bases.
std::unique_ptr<SequenceFile> open_fasta(const std::filesystem::path& path, const FastaOptions& options = {});

}  // namespace focus::data
