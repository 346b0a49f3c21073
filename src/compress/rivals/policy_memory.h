// A layer under a retention policy: raw bases of the open window beside what the policy kept of the closed ones.
#pragma once

#include <memory>

#include "focus/compress/plan/config.h"
#include "focus/compress/memory/memory.h"
#include "focus/compress/rivals/budget.h"
#include "focus/compress/rivals/policy.h"
#include "open_bases.h"

namespace focus::compress {

class PolicyState final : public MemoryState {
 public:
  explicit PolicyState(const StorageFormat& format) : retained(format) {}
  std::unique_ptr<cache::LayerState> clone() const override;
  std::unique_ptr<cache::LayerState> snapshot() const override { return std::make_unique<PolicyState>(*this); }
  cache::TensorMap save() const override;
  void load(const cache::TensorMap& saved, const at::Device& device) override;
  MemoryUse use() const override { return {retained.size(), retained.num_bytes(), open.num_bytes()}; }
  void detach() override;

  EntryStore retained;
  OpenBases open;
};

class PolicyMemory final : public LayerMemory {
 public:
  /// `budget`: the policy's, for planning. `inline_stream`: Focus tokens that other layers compress to stand among this layer's tokens, which keeps them like bases.
  PolicyMemory(const model::Backbone& backbone, const MemoryConfig& config, Budget budget,
               std::shared_ptr<const RetentionPolicy> policy, bool inline_stream = false);
  std::string describe() const override { return policy_->describe(); }
  std::unique_ptr<MemoryState> make_state() const override { return std::make_unique<PolicyState>(format_); }
  at::Tensor stream(const model::AttentionCall& layer, ModelCall& call) const override;
  /// Only where everything is kept.
  at::Tensor parallel(const model::AttentionCall& layer, ModelCall& call) const override;
  /// Of a budget the whole.
  MemoryUse planned(int64_t num_bases) const override;

 private:
  class Walk;
  WindowPlan plan_;
  std::shared_ptr<const RetentionPolicy> policy_;
  bool inline_stream_;
  StorageFormat format_;
  Budget budget_;
  model::BackboneShape shape_;
  at::ScalarType dtype_;
  std::shared_ptr<KmersCache> kmers_ = std::make_shared<KmersCache>();
};

}  // namespace focus::compress
