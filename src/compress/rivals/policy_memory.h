// A layer under a retention policy: raw bases of the open window beside what is retained of the closed ones.
#pragma once

#include <memory>

#include "entries_state.h"
#include "focus/compress/plan/config.h"
#include "focus/compress/rivals/rivals.h"

namespace focus::compress {

class PolicyMemory final : public LayerMemory {
 public:
  /// Whole windows of the configured plan close, whatever Focus's own visibility is. `inline_stream`: Focus
  /// tokens that other layers compress to stand among this layer's tokens, which keeps them like bases.
  /// ConfigError: a storage.dtype that the policy cannot have.
  PolicyMemory(const model::Backbone& backbone, const MemoryConfig& config, const Budget& budget,
               const RetentionPolicy& policy, bool inline_stream = false);
  std::string describe() const override { return policy_.description; }
  std::unique_ptr<MemoryState> make_state() const override {
    return std::make_unique<EntriesState>(format_, open_room(plan_));
  }
  at::Tensor stream(const model::AttentionCall& layer, ModelCall& call) const override;
  /// Only where everything is kept.
  at::Tensor parallel(const model::AttentionCall& layer, ModelCall& call) const override;
  int64_t steady_bases(int64_t base) const override;
  /// Of a budget the whole.
  MemoryUse planned(int64_t num_bases) const override;
  /// Where every entry is one base, or there is none.
  std::optional<int64_t> first_raw(int64_t num_bases) const override;

 private:
  class Walk;
  WindowPlan plan_;
  RetentionPolicy policy_;
  bool inline_stream_;
  StorageFormat format_;
  Budget budget_;
  model::BackboneShape shape_;
  at::ScalarType dtype_;
  std::shared_ptr<KmersCache> kmers_ = std::make_shared<KmersCache>();
};

}  // namespace focus::compress
