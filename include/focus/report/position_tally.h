// How values at positions become the statistics of a run.
#pragma once

#include <cstdint>
#include <vector>

#include "focus/metrics/summary.h"
#include "focus/report/fidelity_result.h"

namespace focus::report {

/// Adds segments to methods, one after the other. What is held does not grow with the positions: about 1 KiB
/// per method and segment, and the sketches.
class PositionTally {
 public:
  /// Of a run with so many positions per segment.
  PositionTally(int64_t positions, int64_t window);

  /// The method's next segment. `full_cross_entropy`: full memory's, [position]; empty: not known. Vectors of
  /// other lengths than the run's are an InternalError.
  void add(const Segment& segment, const SegmentPositions& where, const PositionValues& own,
           const std::vector<float>& full_cross_entropy, MethodResult& out) const;

 private:
  int64_t positions_, behind_;  // behind_: the first position behind a boundary
  metrics::Binning by_position_, by_offset_;
};

}  // namespace focus::report
