// The figures of a finished fidelity run, read back from its folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace focus::report {

/// One measure of a method over the run's main scope; NaN where there is no value.
struct SummaryValue {
  double mean = 0, low = 0, high = 0;  // the mean and its 95% interval over segments
  double median = 0, q25 = 0, q75 = 0, p99 = 0, max = 0;
  int64_t count = 0;
};

struct MethodSummary {
  std::string name, description;
  int64_t kept_entries = 0, kept_bytes = 0, open_bytes = 0, far_bytes = 0;  // as in MethodResult
  double seconds = 0;
  std::map<std::string, SummaryValue> measures;  // by the names of summary.json: kl, ..., delta_cross_entropy
  double recovered = 0, recovered_low = 0, recovered_high = 0;  // R; NaN without state_only
  double recall = 0, recall_low = 0, recall_high = 0;  // NaN where no base was copied, or without state_only
  double effective_length = 0;                         // bases; NaN where nothing tells it
  /// Of the needles' answers: mean, low and high; NaN where none was asked for.
  SummaryValue exact_match, base_accuracy;
  std::vector<double> segment_kl;  // per segment, mean over the main scope
};

struct RunSummary {
  int64_t window = 0, kmer = 0, length = 0;
  bool crosses_boundary = false;
  int64_t copied_positions = 0;       // on which recall stands
  std::string main_scope, subject;    // subject: the method that the run is about; empty: none
  std::vector<std::string> segments;  // "name:begin", in order
  std::vector<MethodSummary> methods;
  std::map<std::string, std::string> provenance;

  const MethodSummary* find(const std::string& method) const;
  /// Whether full memory predicts far worse than a fair draw of A, C, G, T: random weights, about which no
  /// figure of the run says anything. Told from the figures, as no checkpoint says so.
  bool is_random() const;
};

/// From summary.json in the folder of a fidelity run. DataError: it is not there, or no run wrote it.
RunSummary read_run_summary(const std::filesystem::path& folder);

}  // namespace focus::report
