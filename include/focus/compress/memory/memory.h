// What one attention layer remembers of a sequence. Focus entries, base tables, each rival and "keep
// everything" are peers behind this interface: a model holds one LayerMemory per attention block and asks
// none of them what it is. Legend: B batch, n bases, m k-mers, D width.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/compress/far/chooser.h"
#include "focus/model/backbone.h"

namespace focus::compress {

/// What layers hold of one or more streams. Only tensors that are really allocated count.
struct MemoryUse {
  int64_t entries = 0;         // retained entries, at the layer that holds the most
  int64_t retained_bytes = 0;  // what is left of closed windows
  int64_t open_bytes = 0;  // raw keys and values of the open window, and what else is needed until it closes
  int64_t far_bytes = 0;   // far memory: what is stored of closed windows, and the letters' index
  MemoryUse& operator+=(const MemoryUse& layer) {
    entries = std::max(entries, layer.entries);
    retained_bytes += layer.retained_bytes;
    open_bytes += layer.open_bytes;
    far_bytes += layer.far_bytes;
    return *this;
  }
};

/// A layer's memory of one stream.
class MemoryState : public cache::LayerState {
 public:
  virtual MemoryUse use() const = 0;
  int64_t num_bytes() const final {
    const MemoryUse now = use();
    return now.retained_bytes + now.open_bytes + now.far_bytes;
  }
};

/// Focus states of the spans that close during one pass, in the order they close: [B, m, D] each. They go
/// from layer to layer beside the bases, and every layer that reads them closes the same spans. Empty before
/// the first such layer.
using SideStates = std::vector<at::Tensor>;

class FarLayer;

/// What one call of the model tells the memories of all its layers.
struct ModelCall {
  int64_t first_base = 0;  // index of the call's first base in the sequence
  std::vector<bool>
      is_focus;      // inline stream: whether each token of the call is a Focus token; empty = bases only
  at::Tensor codes;  // uint8 [B, n] base codes; undefined unless a memory of the model reads them
  bool recompute =
      false;        // parallel: keep only the inputs of each window's attention and fit for the gradient
  SideStates side;  // replaced layer by layer
  std::shared_ptr<const FarPlan> far = {};  // what the letters fetch; null unless a memory of the model asks
  FarLayer* far_layer = nullptr;            // within a layer whose past is fetched from: what fetches
};

class LayerMemory {
 public:
  virtual ~LayerMemory() = default;
  /// One line for reports.
  virtual std::string describe() const = 0;
  virtual std::unique_ptr<MemoryState> make_state() const = 0;
  /// Continues the stream of `layer.state`, a state of make_state(): attends, takes the call's bases in and
  /// closes what ends. Returns what is added to the residual stream, [B, L, D]. How a sequence is cut into
  /// calls makes no difference beyond rounding.
  virtual at::Tensor stream(const model::AttentionCall& layer, ModelCall& call) const = 0;
  /// The same for a whole sequence in one pass, each base shown exactly what a stream would still hold. A
  /// pure function of the call, the side states and parameters. ConfigError, the default, where a memory can
  /// only stream.
  virtual at::Tensor parallel(const model::AttentionCall& layer, ModelCall& call) const;
  /// What a state holds after `num_bases` bases of one sequence, from integers alone.
  virtual MemoryUse planned(int64_t num_bases) const = 0;
  /// How many bases from `base` on, each in a call of its own, do the same work on the same memory, as far as
  /// there is room for them (cache::Stretch): those that are attended to and taken in while nothing closes,
  /// goes or comes from the host. 0, the default, for a memory that takes no part in stretches.
  virtual int64_t steady_bases(int64_t /*base*/) const { return 0; }
  /// Whether ModelCall::codes is needed.
  virtual bool reads_codes() const { return false; }
  /// Whether ModelCall::far is needed.
  virtual bool fetches() const { return false; }
  /// The first base that is still raw after `num_bases`: those before it have been given to
  /// ModelCall::far_layer. Nothing where a memory does not do so, and far memory cannot stand on it.
  virtual std::optional<int64_t> first_raw(int64_t /*num_bases*/) const { return std::nullopt; }
  /// The first base that `base` sees raw, of a memory that has first_raw().
  virtual int64_t first_seen_raw(int64_t base) const { return first_raw(base).value(); }
};

/// By attention block, each of them named.
using Memories = std::map<int64_t, std::shared_ptr<const LayerMemory>>;

}  // namespace focus::compress
