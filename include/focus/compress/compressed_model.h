// A backbone with compressed memory. Two executions of the same semantics: forward() walks a stream in chunks
// of any size and really drops closed windows; parallel() takes a whole sequence in one pass, with masks that
// show each base exactly what the stream would have kept.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "focus/compress/far/chooser.h"
#include "focus/compress/focus/adapter.h"
#include "focus/compress/memory/memory.h"
#include "focus/compress/plan/config.h"
#include "focus/compress/plan/plan.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// A stream of bases through a compressed model.
struct CompressedStream {
  cache::StreamState backbone;           // positions count Focus tokens too where they are inline
  int64_t bases = 0;                     // bases consumed
  std::unique_ptr<FarChooser> far = {};  // where a memory fetches; created by the first forward

  CompressedStream clone() const { return {backbone.clone(), bases, far ? far->clone() : nullptr}; }
  /// See cache::LayerState::snapshot().
  CompressedStream snapshot() const { return {backbone.snapshot(), bases, far ? far->snapshot() : nullptr}; }
};

struct HiddenStates {
  at::Tensor bases;      // [B, n, D] final hidden state of every base
  at::Tensor focus;      // inline: [B, F, D] of the Focus tokens inserted in this call; else undefined
  at::Tensor next_base;  // inline: [F] index, within this call, of the base after each Focus token (n when it
                         // lies beyond the call)
};

class CompressedModel {
 public:
  /// `memories` has each of the backbone's attention blocks. `focus_embedding` [D]: where Focus tokens are
  /// inserted among the bases, after each k-mer of the plan; else undefined. ConfigError: a storage that
  /// cannot apply to the backbone.
  CompressedModel(std::shared_ptr<model::Backbone> backbone, const MemoryConfig& config, Memories memories,
                  at::Tensor focus_embedding = {});
  /// An adapter's memory on its blocks; the others keep everything.
  CompressedModel(std::shared_ptr<model::Backbone> backbone,
                  const std::shared_ptr<const FocusAdapter>& adapter);

  /// Continues a stream by tokens [B, n >= 1]. The result does not depend on how a sequence is cut into calls
  /// (up to rounding).
  HiddenStates forward(const at::Tensor& tokens_BL, CompressedStream& stream) const;
  /// How many calls of one base each do the same work (LayerMemory::steady_bases), the next one included.
  int64_t steady_bases(const CompressedStream& stream) const;
  /// A whole sequence [B, L] in one pass, each base shown exactly what the stream would still hold. Cost L (W
  /// + L/k); no L x L array. ConfigError: a memory that can only stream.
  HiddenStates parallel(const at::Tensor& tokens_BL) const;

  /// What a stream's attention layers hold together, and what they will hold after `num_bases` bases of one
  /// sequence.
  MemoryUse memory_use(const CompressedStream& stream) const;
  MemoryUse planned_use(int64_t num_bases) const;
  /// Layer states as make_state() gives them, for loading a saved stream.
  std::vector<std::unique_ptr<cache::LayerState>> new_layers() const;
  /// What chooses for a stream from its first base on; null where no memory fetches.
  std::unique_ptr<FarChooser> new_chooser() const;
  /// What the layers say of their memories, for reports; each said once.
  std::string describe() const;

  const model::Backbone& backbone() const { return *backbone_; }
  const std::shared_ptr<model::Backbone>& backbone_ptr() const { return backbone_; }
  const WindowPlan& plan() const { return plan_; }
  const MemoryConfig& config() const { return config_; }

 private:
  struct Expanded;
  Expanded expand(const at::Tensor& tokens_BL, int64_t first_base) const;
  HiddenStates collect(const at::Tensor& hidden, const Expanded& expanded) const;
  ModelCall call_of(const at::Tensor& tokens_BL, const Expanded& expanded, int64_t first_base) const;

  std::shared_ptr<model::Backbone> backbone_;
  MemoryConfig config_;
  WindowPlan plan_;
  std::shared_ptr<const Memories> memories_;
  at::Tensor focus_embedding_;
  bool reads_codes_ = false, fetches_ = false;
};

}  // namespace focus::compress
