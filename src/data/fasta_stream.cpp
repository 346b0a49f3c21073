#include "focus/data/fasta_stream.h"

#include <utility>

#include "fasta_parser.h"

namespace focus::data {

struct FastaStream::Impl {
  FastaParser parser;
};

FastaStream::FastaStream(const std::filesystem::path& path, bool allow_truncated)
    : impl_(new Impl{FastaParser(path, allow_truncated)}) {}
FastaStream::~FastaStream() = default;

bool FastaStream::next(FastaRecord& record) {
  FastaEntry entry;
  record.sequence.clear();
  if (!impl_->parser.next(entry, &record.sequence)) return false;
  record.name = std::move(entry.name);
  return true;
}

}  // namespace focus::data
