// Sequences in memory: of files that cannot be read at random positions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <utility>

#include "focus/data/fasta.h"

namespace focus::data {

class HeldSequences : public SequenceFile {
 public:
  int64_t held_bases() const override { return total_length(); }

 protected:
  using SequenceFile::SequenceFile;
  /// Its name is new.
  void hold(const std::string& name, std::string sequence) {
    add_record(name, static_cast<int64_t>(sequence.size()));
    sequence.shrink_to_fit();
    sequences_.emplace(name, std::move(sequence));
  }

 private:
  std::string read(const std::string& name, int64_t begin, int64_t end) const override {
    return sequences_.at(name).substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  }

  std::unordered_map<std::string, std::string> sequences_;
};

}  // namespace focus::data
