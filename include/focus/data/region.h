// Stretches of records, as users write them.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "focus/data/sequence_file.h"

namespace focus::data {

/// Reads "chr", "chr:start" (to the record's end), "chr:start-" or "chr:start-end"; 1-based, both ends
/// included, thousands commas allowed. A name that itself holds ':' is found by the longest match against the
/// file's records; "{name}:start-end" says it outright. DataError: unknown record (with the nearest name),
/// malformed numbers, start 0, end before start, past the record's end.
Region parse_region(std::string_view text, const SequenceFile& file);

/// "name:start-end", 1-based, both ends included; braces round a name that holds ':'. parse_region() reads it
/// back.
std::string format_region(const Region& region);

/// A line of a BED file.
struct BedRow {
  Region region;
  std::string name;   // column 4, "" where there is none
  char strand = '.';  // column 6: + or -; . for none, ? for anything else
};

/// Rows of a BED file (plain, gzip or BGZF; 0-based, half-open), each checked against the file's records.
/// Columns are separated by tabs, or, in a line without one, by blanks. Comments, blank lines, and "track"
/// and "browser" lines are skipped. DataError names file, line and column: a position that is not a whole
/// number in digits, an empty range, no record of that name, an end past the record's.
std::vector<BedRow> read_bed_rows(const std::filesystem::path& path, const SequenceFile& file);

/// The regions of read_bed_rows().
std::vector<Region> read_bed(const std::filesystem::path& path, const SequenceFile& file);

/// As read_bed, without a file to check against: only that begin >= 0 and end > begin.
std::vector<Region> read_bed(const std::filesystem::path& path);

/// Whether a text is the name of a BED file: *.bed, *.bed.gz or *.bed.bgz.
bool is_bed(std::string_view text);

/// Regions given in a configuration or on a command line: each text is a region (parse_region) or the path of
/// a BED file (is_bed).
std::vector<Region> read_regions(const std::vector<std::string>& texts, const SequenceFile& file);

/// Parts of `regions` that lie in one of `held`, in order; stretches of `held` that touch stay apart.
std::vector<Region> intersect_regions(const std::vector<Region>& regions, const std::vector<Region>& held);

/// Parts of `regions` that lie outside every one of `excluded`, in order.
std::vector<Region> subtract_regions(const std::vector<Region>& regions, const std::vector<Region>& excluded);

}  // namespace focus::data
