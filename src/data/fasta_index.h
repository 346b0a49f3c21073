// The .fai and .gzi files beside a FASTA file: read with distrust, written as samtools does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "fasta_parser.h"
#include "packed_file.h"

namespace focus::data {

/// Where a BGZF block begins.
struct BgzfBlock {
  int64_t packed = 0, unpacked = 0;
};

/// Any bytes of a plain or BGZF file.
class RandomFile {
 public:
  /// Without trust in it, the .gzi is made anew from the headers of the blocks. DataError: cannot be opened,
  /// damaged.
  RandomFile(const std::filesystem::path& path, Packing packing, const std::filesystem::path& gzi,
             bool trust_gzi);
  ~RandomFile();
  RandomFile(const RandomFile&) = delete;
  RandomFile& operator=(const RandomFile&) = delete;

  /// Unpacked bytes [offset, offset + count), fewer at the end of the file. DataError: damaged.
  std::string read(int64_t offset, int64_t count);
  /// Whether the .gzi was missing or wrong, and what it should hold.
  bool gzi_is_new() const { return gzi_is_new_; }
  std::string gzi() const;

 private:
  bool load_gzi(const std::filesystem::path& gzi);
  /// Reads the headers of all blocks, a few bytes each.
  void walk_blocks();
  /// Bytes of the block at `packed`, 0 where there is none.
  int64_t block_size(int64_t packed) const;
  bool block_fits(std::size_t index) const;
  void seek(int64_t offset);

  std::string source_;
  int file_ = -1;
  int64_t size_ = 0;
  BgzfHandle bgzf_;                // none: a plain file
  std::vector<BgzfBlock> blocks_;  // in order, the first at 0
  int64_t position_ = 0;           // of bgzf_
  bool gzi_is_new_ = false;
};

/// Reads what a .fai holds. False where a line is no entry of one.
bool read_fai(std::string_view text, std::vector<FastaEntry>& entries);
std::string write_fai(const std::vector<FastaEntry>& entries);

/// Holds an index against the file at the ends of all records and of their first lines: each must begin with
/// a header line of its name, directly behind the one before, and the last must end the file. Every byte is
/// accounted for, so an index that samtools or this program made cannot fit another file. Fills in the line
/// numbers. Returns what does not fit, "" when all does.
std::string check_fai(RandomFile& file, std::vector<FastaEntry>& entries);

}  // namespace focus::data
