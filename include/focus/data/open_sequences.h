// A file of sequences in any of the formats that can be read at random positions.
#pragma once

#include <filesystem>
#include <memory>

#include "focus/data/fasta.h"

namespace focus::data {

/// JSON lines {"text": ...} where the name ends in .jsonl or .jsonl.gz, held in memory, else FASTA as
/// open_fasta(). DataError as these; of JSON lines also: more than options.held_bases, or two lines of one
/// name.
std::unique_ptr<SequenceFile> open_sequences(const std::filesystem::path& path,
                                             const FastaOptions& options = {});

}  // namespace focus::data
