// FASTA that cannot be read at random positions, held in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>

#include "focus/data/sequence_file.h"

namespace focus::data {

/// A FASTA file in plain gzip, unpacked into memory. DataError: more than `limit_bytes` of sequence (`advice` then begins what to do), and
/// what FastaStream throws.
class HeldFasta final : public SequenceFile {
 public:
  HeldFasta(const std::filesystem::path& path, int64_t limit_bytes, const std::string& advice);
  bool in_memory() const override { return true; }

 private:
  std::string read(const std::string& name, int64_t begin, int64_t end) const override;

  std::unordered_map<std::string, std::string> sequences_;
};

}  // namespace focus::data
