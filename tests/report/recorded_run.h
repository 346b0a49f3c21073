// A run whose values at every position are at hand, and which becomes a result as a measured one does.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "focus/report/position_tally.h"
#include "focus/report/values_file.h"

namespace focus::report {

struct RecordedSegment : Segment {
  SegmentPositions positions;
};

struct RecordedMethod : MethodResult {
  std::array<std::vector<float>, kNumMeasures> values;  // [measure][segment * positions + position]

  PositionValues segment(std::size_t s, int64_t positions) const {
    PositionValues out;
    for (std::size_t m = 0; m < values.size(); ++m) {
      const auto begin = values[m].begin() + static_cast<std::ptrdiff_t>(s) * positions;
      if (!values[m].empty()) out.values[m].assign(begin, std::min(begin + positions, values[m].end()));
    }
    return out;
  }
};

struct RecordedRun {
  int64_t window = 0, kmer = 0, length = 0, positions = 0;
  std::vector<RecordedSegment> segments;
  std::vector<RecordedMethod> methods;
  std::vector<double> needle_depths;
  std::vector<Question> questions;
  int64_t skipped_n_rich = 0;
  std::string subject;
  std::map<std::string, std::string> provenance;
  std::string config_json;

  // NOLINTNEXTLINE(google-explicit-constructor): tests hand it to what takes results.
  operator FidelityResult() const { return result({}); }

  FidelityResult result(const OnValues& on_values) const {
    FidelityResult out;
    out.window = window;
    out.kmer = kmer;
    out.length = length;
    out.positions = positions;
    out.questions = questions;
    out.needle_depths = needle_depths;
    out.skipped_n_rich = skipped_n_rich;
    out.subject = subject;
    out.provenance = provenance;
    out.config_json = config_json;
    for (RecordedSegment segment : segments) {
      segment.copied = std::count(segment.positions.copied.begin(), segment.positions.copied.end(), true);
      out.segments.push_back(segment);
    }
    for (const RecordedMethod& method : methods) out.methods.push_back(method);
    const RecordedMethod* full = nullptr;
    for (const RecordedMethod& method : methods) full = method.name == "full" ? &method : full;
    const PositionTally tally(positions, window);
    for (std::size_t s = 0; s < segments.size(); ++s) {
      std::vector<float> entropy;
      if (full != nullptr)
        entropy = full->segment(s, positions).values[static_cast<std::size_t>(Measure::cross_entropy)];
      for (std::size_t m = 0; m < methods.size(); ++m) {
        const PositionValues values = methods[m].segment(s, positions);
        tally.add(segments[s], segments[s].positions, values, entropy, out.methods[m]);
        if (on_values) on_values(out, m, s, values);
      }
    }
    return out;
  }
};

}  // namespace focus::report
