// A file of sequences in any of the formats that can be read at random positions, or a folder of such files.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "focus/data/fasta.h"

namespace focus::data {

/// JSON lines {"text": ...} where the name ends in .jsonl or .jsonl.gz, held in memory, else FASTA as
/// open_fasta(); of a folder all of both. DataError as these; of JSON lines also: more than
/// options.held_bases, or two lines of one name.
std::unique_ptr<SequenceFile> open_sequences(const std::filesystem::path& path,
                                             const FastaOptions& options = {});

/// Told by the end of a file's name: .fa, .fasta, .fna, and .jsonl; each also with .gz.
enum class SequenceKind { fasta, jsonl, either };

/// The files of a source: itself, or where it is a folder those in it of this kind, by name. Everything else
/// in the folder is passed over, folders too. DataError: there is none of them.
std::vector<std::filesystem::path> sequence_files(const std::filesystem::path& source, SequenceKind kind);

/// What the names of JSON lines without "id" and "name" begin with, which are unique in one file only:
/// nothing where `file` is the source itself, else "file name/".
std::string line_prefix(const std::filesystem::path& source, const std::filesystem::path& file);

/// formats::file_digest() of a file; of a folder a digest of its sequence files, names and contents.
std::string source_digest(const std::filesystem::path& source);

/// All records of a folder's files as one file, in the order of sequence_files(). Only so many files are open
/// at a time as systems allow. DataError: as sequence_files(), as the files' own, and where two of them have
/// a record of one name.
std::unique_ptr<SequenceFile> open_sequence_folder(const std::filesystem::path& folder, SequenceKind kind,
                                                   const FastaOptions& options);

}  // namespace focus::data
