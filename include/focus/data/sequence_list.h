// Sequences as other programs hand them over: a column of a CSV file, FASTA, or one a line.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace focus::data {

enum class SequenceFormat { automatic, csv, fasta, lines };

struct NamedSequence {
  std::string name;      // the FASTA record's name, otherwise "line N", N the line of the file
  std::string sequence;  // bytes as in the file
};

/// Reads a whole file, plain or gzip; "-" is standard input. csv: the first column, without the header line,
/// quoted or not; a byte order mark is skipped. lines: the whole line. Blank lines are skipped. automatic:
/// .csv and .csv.gz are csv, a file that begins with '>' is fasta, any other is lines; standard input cannot
/// be looked at first and is lines. Throws DataError, naming the line: missing, damaged, no sequence at all,
/// an empty one, a byte that is no nucleotide (is_nucleotide), which is how CSV separated by something else
/// shows, a quoted cell over several lines, a comma, quote or blank in a line of `lines`; and what
/// FastaStream throws.
std::vector<NamedSequence> read_sequences(const std::filesystem::path& path,
                                          SequenceFormat format = SequenceFormat::automatic);

}  // namespace focus::data
