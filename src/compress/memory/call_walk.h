// How a stream's memory goes through the tokens of one call: stretch by stretch, each up to the base where
// something changes.
#pragma once

#include <cstdint>
#include <vector>

#include "focus/compress/memory/memory.h"
#include "focus/compress/plan/plan.h"
#include "focus/core/error.h"

namespace focus::compress {

/// [T] rotary positions of a layer's tokens, on their device.
at::Tensor positions_of(const model::AttentionCall& layer);

/// The layer's state, which a memory's own make_state() has made.
template <class State>
State& state_of(const model::AttentionCall& layer) {
  auto* state = dynamic_cast<State*>(layer.state);
  FOCUS_CHECK(state != nullptr, "block ", layer.block, " needs a stream of this compressed model");
  return *state;
}

class CallWalk {
 public:
  /// What the layer adds to the residual stream, [B, L, D].
  at::Tensor run();

 protected:
  /// All three outlive the walk. `inline_stream`: a Focus token follows each k-mer of `plan`.
  CallWalk(const model::AttentionCall& layer, const ModelCall& call, const WindowPlan& plan,
           bool inline_stream);
  ~CallWalk() = default;

  /// The first base after `base` that may see something else.
  virtual int64_t next_change(int64_t base) const = 0;
  /// Before `base` is read.
  virtual void begin(int64_t /*base*/) {}
  /// Takes in and attends: tokens [row, row + count) of the call, which are the bases from `base` on. [B,
  /// count, D]
  virtual at::Tensor bases(int64_t row, int64_t base, int64_t count) = 0;
  /// The same for the Focus token that follows base `base - 1`.
  virtual at::Tensor focus_token(int64_t row, int64_t base) = 0;
  /// After base `base - 1`, and after the Focus token that follows it.
  virtual void end(int64_t base) = 0;

  const model::AttentionCall& layer_;
  const ModelCall& call_;
  const WindowPlan& plan_;
  bool inline_stream_;
  at::Tensor positions_;  // of the call's tokens
  nn::Projection now_;    // likewise
};

}  // namespace focus::compress
