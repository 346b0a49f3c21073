// What fidelity runs of one process share: the model, and what they would measure again over the same
// segments.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fidelity_methods.h"
#include "focus/eval/fidelity.h"
#include "focus/report/fidelity_result.h"
#include "focus/weights/load_model.h"

namespace focus::eval {

/// Holds one model, and of one set of segments at a time full memory's logits, fp32 on the CPU, and the
/// values of the methods that few settings change. What comes out of it is what the runs would measure, bit
/// by bit, but for times, which are those of the first.
class FidelityCache {
 public:
  /// `logits_bytes`: logits of a set of segments that need more are not held, and full memory runs again.
  /// `on_bases`: told in place of a progress line.
  FidelityCache(int64_t logits_bytes, OnBases on_bases)
      : on_bases_(std::move(on_bases)), logits_bytes_(logits_bytes) {}

  const weights::LoadedModel& model(const FidelityConfig& config, const std::string& device,
                                    c10::ScalarType dtype);
  /// What runs have in common that share segments, full memory and chunks.
  static std::string group_of(const FidelityConfig& config, int64_t chunk);
  /// Before a run over the segments of `config` under `plan`: what belongs to others goes.
  void open(const FidelityConfig& config, const compress::WindowPlan& plan, std::size_t num_segments);

  /// Full memory's logits of a segment; undefined where they are not held.
  at::Tensor logits(std::size_t segment) const { return logits_[segment]; }
  void keep_logits(std::size_t segment, const at::Tensor& logits_LV) {
    if (static_cast<int64_t>(logits_LV.nbytes() * logits_.size()) <= logits_bytes_)
      logits_[segment] = logits_LV;
  }
  /// What a method measured in every segment, and what it cost.
  struct Known {
    std::vector<report::PositionValues> values;
    report::MethodResult costs;  // without statistics
  };
  /// Null where it is not held: it is under the same limit as the logits.
  const Known* known(const std::string& method) const;
  void keep_values(const std::string& method, std::size_t segment, const report::PositionValues& values);
  /// Once all segments are kept.
  void keep_costs(const report::MethodResult& result);
  const OnBases& on_bases() const { return on_bases_; }

 private:
  /// What of a memory's settings the figures of `method` depend on; nothing: on more than is worth a cache.
  std::optional<std::string> key_of(const std::string& method) const;

  OnBases on_bases_;
  int64_t logits_bytes_;
  std::string model_key_, segments_key_, windows_;  // windows_: their ends
  std::optional<weights::LoadedModel> model_;
  std::vector<at::Tensor> logits_;              // a segment each
  std::map<std::string, Known> known_, begun_;  // begun_: without costs yet
};

}  // namespace focus::eval
