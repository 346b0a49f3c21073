// How much heap a reader takes at its peak, for limits that grow with the input.
#pragma once

#include <cstddef>

namespace focus::formats::fuzz {

/// Counts from construction on. One at a time.
class HeapMeter {
 public:
  HeapMeter();
  /// Ends the process, as a finding, when the peak was beyond what an honest reader needs for an input of
  /// this size.
  void check(std::size_t input_bytes) const;
};

}  // namespace focus::formats::fuzz
