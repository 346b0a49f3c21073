// What a sampler draws from: files, opened, with the stretches that windows may come from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "focus/data/sampler.h"
#include "focus/data/sequence_file.h"
#include "focus/data/token_store.h"

namespace focus::data {

/// A stretch that windows may be drawn from: a region of a file or a document.
struct Stretch {
  Region region;
  std::string letters;  // empty when the bases stay in the file
};

struct Source {
  std::string path;
  std::unique_ptr<SequenceFile> file;  // none: JSONL
  Drawing drawing = Drawing::windows;
  std::vector<Stretch> stretches;
  double weight = 1.0;

  /// Drawing weight of a stretch: windows of the length, or bases of a document.
  int64_t share(const Stretch& stretch, int64_t length) const {
    return drawing == Drawing::windows ? std::max<int64_t>(0, stretch.region.length() - length + 1)
                                       : stretch.region.length();
  }
  std::string letters(const Stretch& stretch, int64_t begin, int64_t length) const;
};

struct Sources {
  std::vector<Source> list;
  int64_t num_bases = 0;
  bool in_memory = false;  // no draw reads a file
};

/// Opens every file, takes away what is excluded, and holds letters in memory as far as config.memory_mb
/// allows.
Sources open_sources(const SamplerConfig& config);

}  // namespace focus::data
