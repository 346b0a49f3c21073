// What a fidelity run measured: sums and counts, no torch, so that reports, tests and files need nothing
// else.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "focus/metrics/summary.h"

namespace focus::report {

/// Per-position quantities, in this order everywhere (files, tables, plots).
enum class Measure : int { kl, l1, l2, hellinger, js, cross_entropy, kl_acgt, top1_agreement };
inline constexpr int kNumMeasures = 8;
inline constexpr std::array<const char*, kNumMeasures> kMeasureNames = {
    "kl", "l1", "l2", "hellinger", "js", "cross_entropy", "kl_acgt", "top1_agreement"};

/// The measures of how far two distributions lie apart come first.
inline constexpr int kNumDistances = static_cast<int>(Measure::js) + 1;
/// The measures, and one derived from two methods: the cross entropy less full memory's.
inline constexpr int kDeltaCrossEntropy = kNumMeasures, kNumColumns = kNumMeasures + 1;

/// What the sequence says of a base before any model has seen it. Positions are sorted into classes by each
/// of these, and statistics are told for every class.
enum class Grouping : int { repeat, gc, last_copy };
inline constexpr int kNumGroupings = 3;
inline constexpr std::array<const char*, kNumGroupings> kGroupingNames = {"repeat", "gc", "last_copy"};
/// The classes of a grouping in order: a position's class is its place here.
///   repeat     the predicted base is in upper case, or in lower case as repeat maskers write it
///   gc         share of G and C among the 100 bases before it (all there are, at a segment's start)
///   last_copy  how far back the 32 letters before it occurred last; 0: nowhere in the segment
const std::vector<std::string>& class_names(Grouping grouping);
inline constexpr int64_t kGcBases = 100, kCopyWord = 32;
/// Of `last_copy`: 0 for no occurrence, 1 for less than 64 bases, then one class per power of two.
int distance_class(int64_t distance);
/// The least distance of a class of `last_copy`.
int64_t distance_from(int distance_class);

/// Segments whose repeat share is at least this are "repeat-rich" in the reports, the others "ordinary".
inline constexpr double kRepeatRich = 0.1;

struct Segment {
  std::string name;   // record name
  int64_t begin = 0;  // 0-based first base in the record
  double repeat =
      0;  // share of positions whose preceding 32-mer occurred >= window bases earlier in the segment
  int64_t copied = 0;  // SegmentPositions::copied that are true
};

/// What the letters of a segment say of its positions; empty: not known.
struct SegmentPositions {
  std::vector<bool> copied;  // [position] whether recall stands on the base that it predicts
  /// [grouping][position] the class of the base that it predicts.
  std::array<std::vector<uint8_t>, kNumGroupings> classes;
};

/// A needle that was asked for behind a segment: its key was read again, its value would have been the
/// answer.
struct Question {
  std::string key, value;  // bases
};

/// A method's values in one segment, [measure][position]; a measure that is empty was not measured. Position
/// p holds the prediction of base p+1 from bases 0..p. cross_entropy is the method's own. NaN where the next
/// base is not A, C, G or T.
struct PositionValues {
  std::array<std::vector<float>, kNumMeasures> values;
};

/// A method's sums over one segment. "Behind" is behind the first boundary; where none is crossed,
/// everything.
struct SegmentTotals {
  struct Column {
    metrics::Total before, behind;
  };
  struct Class {
    metrics::Total kl, cross_entropy, delta_cross_entropy;
  };
  std::array<Column, kNumColumns> columns;
  metrics::Total copied;  // delta_cross_entropy at copied positions
  /// [grouping][class] behind; no longer than the largest class that occurs.
  std::array<std::vector<Class>, kNumGroupings> classes;
};

/// A column of a method over all segments.
struct ColumnTally {
  metrics::QuantileSketch before, repeat_rich, ordinary;  // the last two behind the first boundary
  std::vector<metrics::Bin> by_position, by_offset;       // as metrics::bin_by_position, bin_by_offset
  metrics::Histogram distribution;                        // of a distance, behind the first boundary
};

struct MethodResult {
  std::string name;                     // short, as in tables: "focus", "sliding", ...
  std::string description;              // one line: policy, unit, k, beta, ...
  std::vector<SegmentTotals> segments;  // as FidelityResult::segments
  std::array<ColumnTally, kNumColumns> columns;
  std::vector<std::string> answers;  // [segment * questions + question] bases; empty where nothing was asked
  int64_t kept_entries = 0;          // per attention layer, at the end of a segment (open window not counted)
  int64_t kept_bytes = 0;            // bytes really held by retained entries, all layers
  int64_t open_bytes = 0;            // bytes of the open window's raw KV, all layers
  int64_t far_bytes = 0;             // bytes of far memory: its store in all layers, and the letters' index
  double seconds = 0;                // for all segments, what methods share not counted
};

struct FidelityResult {
  int64_t window = 0;     // W in bases
  int64_t kmer = 0;       // k in bases
  int64_t length = 0;     // bases per segment
  int64_t positions = 0;  // length - 1
  std::vector<Segment> segments;
  std::vector<MethodResult>
      methods;  // methods[0] is "full"; a method called "noise_floor" is full with other chunk sizes
  std::vector<double> needle_depths;  // of the questions behind each segment, as shares of its length
  std::vector<Question> questions;    // [segment * depths + depth]
  int64_t bootstrap_draws = 1000;     // of the reports' intervals
  uint64_t bootstrap_seed = 42;
  int64_t skipped_n_rich = 0;  // candidate segments skipped for too many N
  std::string subject;         // the method that the run is about, which the report answers for; empty: none
  std::map<std::string, std::string>
      provenance;           // version, git, model and input digests, device, dtype, seed, command line
  std::string config_json;  // resolved configuration
};

}  // namespace focus::report
