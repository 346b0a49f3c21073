// What every backbone is: an embedding, blocks that map a residual stream to itself, a final norm and an
// unembedding. It knows nothing of compression: the one hook below, called at attention layers, is the seam;
// without a hook a backbone is exactly the published model. Legend: B batch, L length, D width, V vocabulary.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "focus/cache/stream_state.h"
#include "focus/model/vocabulary.h"
#include "focus/nn/attention.h"
#include "focus/nn/rms_norm.h"

namespace focus::model {

/// What others need to know of a backbone, whatever its architecture.
struct BackboneShape {
  std::string name;
  int64_t vocab_size = 0, width = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;  // of the attention layers
  int64_t max_length = 0;  // what the model was trained for; longer input is computed all the same
};

/// What an attention layer shows its hook.
struct AttentionCall {
  const nn::Attention& attention;
  const nn::RmsNorm& pre_norm;
  int64_t block = 0;                   // index of the block in the model
  at::Tensor x_BLD;                    // residual stream before the layer
  at::Tensor u_BLD;                    // pre_norm(x)
  int64_t position = 0;                // position of the first token
  cache::LayerState* state = nullptr;  // the hook's own state for this layer; null in a stateless pass
};

class AttentionHook : public std::enable_shared_from_this<AttentionHook> {
 public:
  virtual ~AttentionHook() = default;
  /// Replaces the layer's attention: returns what is added to the residual stream, [B, L, D].
  virtual at::Tensor mix(const AttentionCall& call) = 0;
  /// Whether mix() without a state is a pure function of the call, the carried tensors and parameters, so
  /// that a backbone that recomputes may run a block again in the backward pass. Such a hook is held by a
  /// shared pointer and owns what it refers to.
  virtual bool repeatable() const { return false; }
  /// What passes from layer to layer beside the residual stream: mix() reads and replaces it.
  virtual std::vector<at::Tensor> carried() const { return {}; }
  virtual void carry(std::vector<at::Tensor> /*tensors*/) {}
  virtual std::unique_ptr<cache::LayerState> make_state(int64_t block) = 0;
};

class Block : public torch::nn::Module {
 public:
  /// `state` null: a whole sequence from position 0. Otherwise the chunk continues the stream and the state
  /// is advanced.
  virtual at::Tensor forward(const at::Tensor& x_BLD, int64_t position, cache::LayerState* state,
                             AttentionHook* hook) = 0;
  /// `expected_length` of the stream, 0 where unknown.
  virtual std::unique_ptr<cache::LayerState> make_state(AttentionHook* hook,
                                                        int64_t expected_length) const = 0;
  /// The block's attention; null where it mixes positions by other means.
  virtual const nn::Attention* attention() const { return nullptr; }
  /// Bytes that the block carries from chunk to chunk per sequence, however long it is; keys and values of
  /// the past not counted.
  virtual int64_t state_bytes() const { return 0; }
  /// Bytes of temporary memory that forward() needs at its peak, per token of a chunk, in inference.
  virtual int64_t workspace_bytes() const = 0;
};

class Backbone : public torch::nn::Module {
 public:
  /// tokens [B, L] int64 -> [B, L, D].
  virtual at::Tensor embed(const at::Tensor& tokens_BL) const = 0;
  /// Final hidden states [B, L, D] -> logits [B, L, V].
  virtual at::Tensor unembed(const at::Tensor& hidden_BLD) const = 0;
  /// Runs all blocks and the final norm on embedded tokens of any length >= 1, in a stretch of 1. With a
  /// state, the chunk continues the stream and the state is advanced; without, it is a whole sequence from
  /// position 0.
  at::Tensor forward_embedded(const at::Tensor& x_BLD, cache::StreamState* state,
                              AttentionHook* hook = nullptr);
  /// embed, forward_embedded, unembed.
  at::Tensor forward(const at::Tensor& tokens_BL, cache::StreamState* state = nullptr,
                     AttentionHook* hook = nullptr);

  /// Another model over the same memory: its parameters are tensors of their own that alias this one's,
  /// frozen. Whoever trains one of them gives it storage of its own first.
  virtual std::shared_ptr<Backbone> twin() const = 0;

  const BackboneShape& shape() const { return shape_; }
  /// From letters to the tokens that embed() takes and unembed() predicts.
  const Vocabulary& vocabulary() const { return vocabulary_; }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  Block& block(int64_t index) const { return *blocks_.at(static_cast<std::size_t>(index)); }
  std::vector<int64_t> attention_blocks() const;
  /// [V, D]
  virtual const at::Tensor& embedding_weight() const = 0;
  /// Where tokens enter.
  at::Device device() const { return embedding_weight().device(); }
  at::ScalarType dtype() const { return embedding_weight().scalar_type(); }
  int64_t num_parameters() const;
  void set_trainable(bool trainable);
  /// Puts each block on a device of its own (one per block); embedding, final norm and unembedding go to the
  /// first block's.
  void place(const std::vector<at::Device>& devices);
  /// Where place() would put each parameter and buffer.
  std::map<const c10::TensorImpl*, at::Device> places(const std::vector<at::Device>& devices) const;
  at::Device block_device(int64_t block) const;
  /// Training keeps only each block's input and runs the block again in the backward pass: far less memory, a
  /// third more time. Attention blocks with a state, or under a hook that is not repeatable, are not run
  /// again.
  void set_recompute(bool recompute) { recompute_ = recompute; }
  bool recomputes() const { return recompute_; }
  /// The dtype of a parameter when the model computes in `compute`: its own for parameters that must keep
  /// their digits.
  virtual at::ScalarType dtype_of_parameter(const std::string& name, at::ScalarType compute) const;
  /// Rounds the parameters to what dtype_of_parameter() says.
  void cast(at::ScalarType compute);

 protected:
  /// For twin(): takes the tensors, placement and FP8 state of a model of the same configuration.
  void alias(const Backbone& original);
  virtual at::Tensor final_norm(const at::Tensor& x_BLD) const = 0;
  BackboneShape shape_;
  Vocabulary vocabulary_;
  std::vector<std::shared_ptr<Block>>
      blocks_;  // in order; registered by the architecture under its own names

 private:
  at::Tensor run_block(std::size_t index, const at::Tensor& x_BLD, int64_t position, cache::LayerState* state,
                       AttentionHook* hook);

  std::vector<at::Device> devices_;  // empty: all on one
  bool recompute_ = false;
};

/// Rotary positions [L] of a chunk whose first token stands at `position`, on the device. In a stretch that
/// `state`, which may be null, takes part in, the device counts them.
at::Tensor chunk_positions(const at::Tensor& u_BLD, int64_t position, const cache::LayerState* state);

/// Plain causal attention of a chunk, with all keys and values of the past in `state` (null: no past).
at::Tensor attend(const nn::Attention& attention, const at::Tensor& u_BLD, int64_t position,
                  cache::LayerState* state);

}  // namespace focus::model
