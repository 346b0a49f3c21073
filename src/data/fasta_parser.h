// The one rule of what a FASTA file may hold, for every way of reading one.
//
// A record is a header line, '>' directly followed by the name, and lines of letters of the nucleotide code.
// Lines end with LF or CR LF. Blanks and tabs in sequence lines, blank lines, and a byte order mark at the
// start are skipped. Every other byte is an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "packed_file.h"

namespace focus::data {

/// A record and its layout, as a .fai file gives it. Offsets count unpacked bytes.
struct FastaEntry {
  std::string name;
  int64_t length = 0;      // bases
  int64_t offset = 0;      // of the first base
  int64_t line_bases = 0;  // in each line but the last
  int64_t line_bytes = 0;  // the same with the line end
  int64_t line = 0;        // 1-based number of the header line
};

/// Whether a name is text that can be shown: UTF-8 without control characters, and not of thousands of bytes.
bool is_record_name(std::string_view name);

/// Place of the first byte that is_nucleotide() refuses; the length where there is none.
int64_t find_foreign(std::string_view letters);

/// Why base `index` (0-based) of a record cannot be what the file holds there, with the place in the file.
[[noreturn]] void refuse_base(const std::string& source, const std::string& record, int64_t index,
                              int64_t line, int64_t column, uint8_t byte);

/// Reads records in file order, the first header line at once. DataError names the line: damaged, no FASTA,
/// no record, a record without name or bases, a repeated name, a byte that has no place in it.
class FastaParser {
 public:
  explicit FastaParser(const std::filesystem::path& path, bool allow_truncated = false);

  /// False after the last record. Appends the record's letters to `letters`, if given.
  bool next(FastaEntry& entry, std::string* letters);
  /// Why some record so far cannot be found by arithmetic, that is, why the file cannot be indexed; "" when
  /// all can.
  const std::string& irregular() const { return irregular_; }
  const std::string& source() const { return file_.source(); }

 private:
  static constexpr int kEnd = -1;

  bool fill();
  int peek() { return fill() ? static_cast<unsigned char>(buffer_[cursor_]) : kEnd; }
  int take();
  int64_t offset() const { return base_ + static_cast<int64_t>(cursor_); }
  std::string where() const;
  [[noreturn]] void refuse_cr() const;
  [[noreturn]] void refuse_start();

  void find_first_header();
  void read_header(FastaEntry& entry);
  void read_body(FastaEntry& entry, std::string* letters);
  /// Letters of a part of one line.
  void take_part(std::string_view part, FastaEntry& entry, std::string* letters);
  void note_layout(FastaEntry& entry, int64_t bytes, bool ended);

  PackedFile file_;
  std::vector<char> buffer_;
  std::size_t cursor_ = 0, end_ = 0;
  int64_t base_ = 0;                   // file offset of the buffer
  int64_t line_ = 1, line_begin_ = 0;  // of the line at the cursor
  // Of the line being read.
  int64_t line_bases_ = 0;
  bool has_blanks_ = false, has_cr_ = false;
  bool last_line_ = false;  // of the record, if it can be indexed: shorter than the others, or blank
  std::string irregular_;
  std::unordered_set<std::string> seen_;
};

}  // namespace focus::data
