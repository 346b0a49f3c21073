// FASTA in memory.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "focus/data/fasta.h"

namespace focus::data {

/// A file that cannot be indexed, in memory; `why`, which follows its name, goes into the messages.
/// DataError: more than options.held_bases, and what FastaStream throws.
std::unique_ptr<SequenceFile> hold_fasta(const std::filesystem::path& path, const FastaOptions& options,
                                         const std::string& why);

}  // namespace focus::data
