// Packing sequence files into a token store.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace focus::data {

struct PackSource {
  std::string path;                          // FASTA (plain, gzip, BGZF) or JSONL (plain, gzip)
  bool jsonl = false;                        // all sources of a store are of one kind
  std::map<std::string, std::string> about;  // stored beside the source's path, e.g. its digest
  std::string line_prefix;                   // of JsonlReader
};

struct PackOptions {
  std::vector<std::string> regions;          // regions or .bed files to pack; empty: every record
  std::vector<std::string> exclude;          // regions or .bed files to leave out
  bool allow_truncated = false;              // FastaOptions
  std::map<std::string, std::string> about;  // attributes of the file, e.g. the program's version
  std::function<void(int64_t, int64_t)>
      progress;  // told (done, all) bases every MB or so; may throw to give the store up
};

struct PackResult {
  int64_t records = 0, stretches = 0, bases = 0;
};

/// Writes `output` under a temporary name and renames it when complete. Every base is checked to be a letter
/// that a sampler takes. DataError: unreadable or unsound sources, a record name that occurs twice, regions
/// that no source has, nothing left to pack, a document of one base, an output that cannot be written.
/// ConfigError: no source, sources of both kinds.
PackResult pack(const std::vector<PackSource>& sources, const PackOptions& options,
                const std::filesystem::path& output);

}  // namespace focus::data
