#include "focus/data/sequence_list.h"

#include "fasta_parser.h"
#include "focus/core/error.h"
#include "focus/data/fasta_stream.h"
#include "focus/data/letters.h"
#include "line_reader.h"

namespace focus::data {
namespace {

std::string name_of(const std::filesystem::path& path) {
  return path == "-" ? "standard input" : concat("'", path.string(), "'");
}

/// The first cell of a CSV line: quotes are taken off, doubled ones inside become one.
std::string first_cell(const std::string& line, const std::string& where) {
  if (line.empty() || line[0] != '"') return line.substr(0, line.find(','));
  std::string cell;
  for (std::size_t i = 1; i < line.size(); ++i) {
    if (line[i] != '"') {
      cell += line[i];
    } else if (i + 1 < line.size() && line[i + 1] == '"') {
      cell += line[++i];
    } else if (i + 1 == line.size() || line[i + 1] == ',') {
      return cell;
    } else {
      fail<DataError>(
          where,
          ": text follows the closing quote of the first cell; expected a comma or the end of the line");
    }
  }
  fail<DataError>(
      where, ": the quote of the first cell is not closed on that line; a sequence must stand on one line");
}

SequenceFormat format_of(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (name.ends_with(".csv") || name.ends_with(".csv.gz")) return SequenceFormat::csv;
  if (path == "-") return SequenceFormat::lines;
  LineReader lines(path);
  for (std::string line; lines.next(line);) {
    if (!line.empty()) return line[0] == '>' ? SequenceFormat::fasta : SequenceFormat::lines;
  }
  return SequenceFormat::lines;
}

std::vector<NamedSequence> read_lines(const std::filesystem::path& path, bool csv) {
  std::vector<NamedSequence> out;
  LineReader lines(path);
  std::string line;
  for (bool header = csv; lines.next(line);) {
    const std::string where = lines.where();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (header) {
      header = false;
      continue;
    }
    if (!csv && line[0] == '>')
      fail<DataError>(where, ": begins with '>', as FASTA does; say so with the format");
    if (!csv && line.find_first_of(", \t\"") != std::string::npos)
      fail<DataError>(where,
                      ": holds a comma, blank or quote; expected one sequence a line. If it is CSV, say so "
                      "with the format");
    std::string sequence = csv ? first_cell(line, where) : line;
    if (sequence.empty()) fail<DataError>(where, ": its first column is empty; expected a sequence");
    const auto foreign = static_cast<std::size_t>(find_foreign(sequence));
    if (foreign < sequence.size()) {
      const char byte = sequence[foreign];
      const bool separator = csv && (byte == ';' || byte == '\t' || byte == '|' || byte == ' ');
      fail<DataError>(where, ": letter ", foreign + 1, " of the sequence is ",
                      foreign_byte(static_cast<uint8_t>(byte)),
                      separator ? "; columns of CSV are separated by commas, not by that" : "");
    }
    out.push_back({concat("line ", lines.number()), std::move(sequence)});
  }
  if (out.empty()) fail<DataError>(name_of(path), " holds no sequence", csv ? " after its header line" : "");
  return out;
}

}  // namespace

std::vector<NamedSequence> read_sequences(const std::filesystem::path& path, SequenceFormat format) {
  if (format == SequenceFormat::automatic) format = format_of(path);
  if (format != SequenceFormat::fasta) return read_lines(path, format == SequenceFormat::csv);
  std::vector<NamedSequence> out;
  FastaStream stream(path);
  for (FastaRecord record; stream.next(record);) out.push_back({record.name, std::move(record.sequence)});
  return out;
}

}  // namespace focus::data
