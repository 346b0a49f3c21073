#include "focus/data/fasta_stream.h"

#include <algorithm>
#include <unordered_set>

#include "focus/core/error.h"
#include "line_reader.h"

namespace focus::data {

struct FastaStream::Impl {
  explicit Impl(const std::filesystem::path& path)
      : lines(path), source(path == "-" ? "standard input" : concat("'", path.string(), "'")) {}

  /// Moves to the next header line; false at the end. Called at the start and after each record, so anything else is no FASTA.
  bool find_header() {
    while (line.empty()) {
      if (!lines.next(line)) return false;
    }
    if (line[0] == '>') return true;
    if (line[0] == '@') fail<DataError>(source, " is FASTQ, but FASTA is needed; convert it with: seqtk seq -A (or samtools fasta)");
    fail<DataError>(source, " is not FASTA: line ", lines.number(), " must begin with '>'");
  }

  LineReader lines;
  std::string source, line;
  std::unordered_set<std::string> seen;
};

FastaStream::FastaStream(const std::filesystem::path& path) : impl_(std::make_unique<Impl>(path)) {
  if (!impl_->find_header()) fail<DataError>(impl_->source, " holds no FASTA record");
}
FastaStream::~FastaStream() = default;

bool FastaStream::next(FastaRecord& record) {
  std::string& line = impl_->line;
  if (!impl_->find_header()) return false;
  const std::string where = concat("line ", impl_->lines.number(), " of ", impl_->source, ": ");
  record.name = line.substr(1, line.find_first_of(" \t", 1) - 1);
  if (record.name.empty()) fail<DataError>(where, "a record has no name ('>' must be followed by one)");
  if (!impl_->seen.insert(record.name).second) fail<DataError>(where, "record name '", record.name, "' occurs twice; names must be unique");
  record.sequence.clear();
  while (impl_->lines.next(line) && (line.empty() || line[0] != '>')) {
    std::erase_if(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
    record.sequence += line;
    line.clear();
  }
  if (record.sequence.empty()) fail<DataError>(where, "record '", record.name, "' has no bases; remove it");
  return true;
}

}  // namespace focus::data
