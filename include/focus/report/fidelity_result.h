// What a fidelity run measured: plain arrays, no torch, so that reports, tests and files need nothing else.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace focus::report {

/// Per-position quantities, in this order everywhere (files, tables, plots).
enum class Measure : int { kl, l1, l2, hellinger, js, cross_entropy, kl_acgt, top1_agreement };
inline constexpr int kNumMeasures = 8;
inline constexpr std::array<const char*, kNumMeasures> kMeasureNames = {
    "kl", "l1", "l2", "hellinger", "js", "cross_entropy", "kl_acgt", "top1_agreement"};

struct Segment {
  std::string name;   // record name
  int64_t begin = 0;  // 0-based first base in the record
  double repeat =
      0;  // share of positions whose preceding 32-mer occurred >= window bases earlier in the segment
  std::vector<bool> copied;  // [position] whether the base that it predicts is one of these; empty: not known
};

struct MethodResult {
  std::string name;         // short, as in tables: "focus", "sliding", ...
  std::string description;  // one line: policy, unit, k, beta, ...
  /// [measure][segment * positions + position]; position p holds the prediction of base p+1 from bases 0..p.
  /// cross_entropy is the method's own; the baseline's is in the method called "full". NaN where the next
  /// base is not A, C, G or T.
  std::array<std::vector<float>, kNumMeasures> values;
  int64_t kept_entries = 0;  // per attention layer, at the end of a segment (open window not counted)
  int64_t kept_bytes = 0;    // bytes really held by retained entries, all layers
  int64_t open_bytes = 0;    // bytes of the open window's raw KV, all layers
  int64_t far_bytes = 0;     // bytes of far memory: its store in all layers, and the letters' index
  double seconds = 0;        // time spent on this method, all segments
};

struct FidelityResult {
  int64_t window = 0;     // W in bases
  int64_t kmer = 0;       // k in bases
  int64_t length = 0;     // bases per segment
  int64_t positions = 0;  // length - 1
  std::vector<Segment> segments;
  std::vector<MethodResult>
      methods;  // methods[0] is "full"; a method called "noise_floor" is full with other chunk sizes
  int64_t bootstrap_draws = 1000;  // of the reports' intervals
  uint64_t bootstrap_seed = 42;
  int64_t skipped_n_rich = 0;  // candidate segments skipped for too many N
  std::map<std::string, std::string>
      provenance;           // version, git, model and input digests, device, dtype, seed, command line
  std::string config_json;  // resolved configuration
};

}  // namespace focus::report
