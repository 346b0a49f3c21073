// A pass over everything that a sampler may draw: each window once.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "source.h"

namespace focus::data {

struct PassWindow {
  uint32_t source = 0;   // of Sources::list
  uint32_t stretch = 0;  // of its stretches
  int64_t begin = 0, size = 0;
};

/// Stretches are cut from their beginnings into windows of `length`. The rest of a document is a shorter
/// window, if it has two bases; the rest of a region is left out, and so are windows with too many letters
/// other than A, C, G and T. Safe to use from several threads.
class Pass {
 public:
  /// Reads all letters once. DataError: no window is left.
  Pass(const Sources& sources, int64_t length, double max_n_fraction);
  int64_t length() const { return length_; }
  int64_t size() const { return static_cast<int64_t>(windows_.size()); }
  /// Window `index` of pass after pass, each in an order of its own.
  PassWindow at(uint64_t index, uint64_t seed) const;

 private:
  int64_t length_;
  std::vector<PassWindow> windows_;
  mutable std::mutex mutex_;
  mutable std::vector<uint32_t> order_;  // of the pass asked for last
  mutable uint64_t ordered_pass_ = 0, ordered_seed_ = 0;
};

}  // namespace focus::data
