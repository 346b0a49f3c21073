// A backbone with compressed memory. Two executions of the same semantics: forward() walks a stream in chunks of any size and really drops
// closed windows; parallel() takes a whole sequence in one pass, with masks that show each base exactly what the stream would have kept.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "focus/compress/config.h"
#include "focus/compress/layer_rules.h"
#include "focus/compress/policy.h"
#include "focus/compress/unit.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// A stream of bases through a compressed model.
struct CompressedStream {
  cache::StreamState backbone;  // positions count Focus tokens too where they are inline
  int64_t bases = 0;            // bases consumed

  CompressedStream clone() const { return {backbone.clone(), bases}; }
  /// See cache::LayerState::snapshot().
  CompressedStream snapshot() const { return {backbone.snapshot(), bases}; }
};

/// What a stream's attention layers hold. Only tensors that are really allocated count.
struct MemoryUse {
  int64_t entries = 0;         // retained entries at the attention layer that holds the most
  int64_t retained_bytes = 0;  // keys, values and beta of retained entries, all layers
  int64_t open_bytes = 0;      // raw keys, values (and what the unit still needs) of the open window, all layers
};

struct HiddenStates {
  at::Tensor bases;      // [B, n, D] final hidden state of every base
  at::Tensor focus;      // inline: [B, F, D] of the Focus tokens inserted in this call; else undefined
  at::Tensor next_base;  // inline: [F] index, within this call, of the base after each Focus token (n when it lies beyond the call)
};

class CompressedModel {
 public:
  /// Focus: units from the adapter.
  CompressedModel(std::shared_ptr<model::Backbone> backbone, std::shared_ptr<FocusAdapter> adapter);
  /// The same adapter, its parameters shared, under another window plan, another k, or on some of its layers only (`focus.layers`; the
  /// others keep everything): what random schedules draw for a step. ConfigError when a layer has no unit or parameters would not fit.
  CompressedModel(std::shared_ptr<model::Backbone> backbone, std::shared_ptr<FocusAdapter> adapter, const MemoryConfig& config);
  /// A rival on every attention layer. Its window plan and budget come from `config`; ConfigError unless focus.local is 'window'.
  CompressedModel(std::shared_ptr<model::Backbone> backbone, const MemoryConfig& config, std::shared_ptr<RetentionPolicy> policy);
  ~CompressedModel();

  /// Continues a stream by tokens [B, n >= 1]. The result does not depend on how a sequence is cut into calls (up to rounding).
  HiddenStates forward(const at::Tensor& tokens_BL, CompressedStream& stream) const;
  /// A whole sequence [B, L] in one pass, each base shown exactly what the stream would still hold; only with an adapter. Cost
  /// L (W + L/k); no L x L array. Where the backbone recomputes its blocks, this model lives until the backward pass.
  HiddenStates parallel(const at::Tensor& tokens_BL) const;

  MemoryUse memory_use(const CompressedStream& stream) const;
  /// Bytes of one Focus entry at one attention layer for batch 1: the unit of equal-byte budgets.
  static int64_t focus_entry_bytes(const model::Backbone& backbone, const MemoryConfig& config);

  /// What rivals of Focus under `config` may hold.
  static Budget budget(const model::Backbone& backbone, const MemoryConfig& config);

  const model::Backbone& backbone() const { return *backbone_; }
  const std::shared_ptr<model::Backbone>& backbone_ptr() const { return backbone_; }
  const WindowPlan& plan() const { return plan_; }
  const MemoryConfig& config() const { return config_; }
  /// What attention layers hold after `length` bases of one sequence, from the plan alone; what memory_use() then reports. Rivals are
  /// counted with their whole budget.
  MemoryUse planned_use(int64_t length) const;
  /// Layer states as make_state() gives them, for loading a saved stream.
  std::vector<std::unique_ptr<cache::LayerState>> new_layers() const;

 private:
  struct Expanded;
  Expanded expand(const at::Tensor& tokens_BL, int64_t first_base) const;
  HiddenStates collect(const at::Tensor& hidden, const Expanded& expanded) const;
  void make_rules();
  /// Letters of a call, where the memory keeps them.
  at::Tensor letters_of(const at::Tensor& tokens_BL) const;

  std::shared_ptr<model::Backbone> backbone_;
  std::shared_ptr<FocusAdapter> adapter_;
  MemoryConfig config_;
  std::shared_ptr<RetentionPolicy> policy_;
  WindowPlan plan_;
  std::map<int64_t, LayerRules> rules_;  // of the blocks that Focus compresses
};

}  // namespace focus::compress
